//! `broadcast`: rooms. A message goes to everyone in the room, its sender included, encoded once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{Context, Group, Message};

/// All rooms that have members.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    by_name: Mutex<HashMap<Box<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    room: Arc<Room>,
    /// Those who came and have not left; the group's own count lags behind.
    seats: usize,
}

#[derive(Debug)]
struct Room {
    name: Box<str>,
    group: Group,
}

/// A client's place in a room.
#[derive(Debug)]
pub(super) struct Seat(Arc<Room>);

impl Rooms {
    pub(super) fn join(&self, name: Box<str>, context: &mut Context<'_>) -> Seat {
        let mut rooms = self.lock();
        let entry = rooms.entry(name).or_insert_with_key(|name| {
            let room = Arc::new(Room { name: name.clone(), group: context.new_group() });
            Entry { room, seats: 0 }
        });
        entry.seats += 1;
        let room = Arc::clone(&entry.room);
        drop(rooms);
        context.join(&room.group);
        Seat(room)
    }

    /// The engine has taken the client out of the group already.
    pub(super) fn leave(&self, seat: &Seat) {
        let mut rooms = self.lock();
        let Some(entry) = rooms.get_mut(&seat.0.name) else { return };
        entry.seats -= 1;
        if entry.seats == 0 {
            rooms.remove(&seat.0.name);
        }
        if rooms.len() < rooms.capacity() / 8 {
            rooms.shrink_to_fit();
        }
    }

    /// Nothing panics with it held; and if something did, the map is never half changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Entry>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn say(&self, message: Message<'_>, context: &mut Context<'_>) {
        context.publish(&self.0.group, message);
    }
}
