//! Groups ("rooms"): connections that get the same messages, on whichever threads they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use handoff_websocket::Message;

use super::batch::{Batch, Numbered};
use super::mailbox::{Command, Mailbox, SendError};
use super::prepared::Prepared;
use super::slab::Key;

/// A group of connections; cheap to clone. It lives for as long as somebody has it or is in it.
#[derive(Debug, Clone)]
pub struct Group(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: u64,
    threads: Arc<[Arc<Mailbox>]>,
    /// Members on each thread: a message goes to those who have any.
    members: Box<[AtomicUsize]>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Group {
    pub(crate) fn new(threads: &Arc<[Arc<Mailbox>]>) -> Group {
        Group(Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            threads: Arc::clone(threads),
            members: threads.iter().map(|_| AtomicUsize::new(0)).collect(),
        }))
    }

    /// Sends a message to all members, encoded once. Inside a handler, [`Context::publish`](super::Context::publish) keeps
    /// the order of what the connection itself is sent.
    ///
    /// # Errors
    ///
    /// [`SendError`]: the members on one thread, or on several, do not get it.
    pub fn publish(&self, message: Message<'_>) -> Result<(), SendError> {
        self.publish_prepared(&Prepared::new(message))
    }

    /// The same for a message that is sent to others, too.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_prepared(&self, message: &Prepared) -> Result<(), SendError> {
        self.publish_but(message, None)
    }

    /// Leaves out a thread, whose members are told otherwise.
    pub(crate) fn publish_but(
        &self,
        message: &Prepared,
        thread: Option<usize>,
    ) -> Result<(), SendError> {
        let mut result = Ok(());
        for (index, mailbox) in self.0.threads.iter().enumerate() {
            if Some(index) != thread && self.members_on(index) > 0 {
                let group = self.0.id;
                let posted = mailbox.post(Command::Publish { group, message: message.clone() });
                result = result.and(posted);
            }
        }
        result
    }

    /// Members now.
    pub fn len(&self) -> usize {
        (0..self.0.members.len()).map(|index| self.members_on(index)).sum()
    }

    /// Whether nobody is in it now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    pub(crate) fn members_on(&self, thread: usize) -> usize {
        self.0.members.get(thread).map_or(0, |count| count.load(Ordering::Acquire))
    }

    fn count(&self, thread: usize, change: isize) {
        if let Some(count) = self.0.members.get(thread) {
            count.fetch_add(change as usize, Ordering::AcqRel);
        }
    }
}

/// Messages to a group that cost about as much as one if they leave together; much as in [`Roster::add`].
const SENDS_TOGETHER: usize = 16;

/// Bytes of messages that may wait for the end of the round, and what is added to each message's: a round of many short ones
/// ends at some time, too.
const WAITING: usize = 64 << 10;
const HEADS: usize = 256;

/// A connection's first membership, where its others can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memberships(u32);

impl Memberships {
    pub(crate) const NONE: Memberships = Memberships(u32::MAX);
}

/// Who is in which group, on one thread.
#[derive(Debug)]
pub(crate) struct Roster {
    thread: usize,
    groups: HashMap<u64, LocalGroup>,
    memberships: Vec<Membership>,
    free: u32,
    /// The groups that messages wait for.
    due: Vec<u64>,
    /// What these take together.
    waiting: usize,
    /// Messages to groups so far.
    count: u64,
}

#[derive(Debug)]
struct LocalGroup {
    group: Group,
    members: Vec<Member>,
    batch: Option<Box<Batch>>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    key: Key,
    membership: u32,
}

/// One connection in one group; in the list of the connection's memberships, or of free places.
#[derive(Debug, Clone, Copy)]
struct Membership {
    group: u64,
    /// In the group's members.
    position: u32,
    next: u32,
}

impl Roster {
    pub(crate) fn new(thread: usize) -> Roster {
        Roster {
            thread,
            groups: HashMap::new(),
            memberships: Vec::new(),
            free: u32::MAX,
            due: Vec::new(),
            waiting: 0,
            count: 0,
        }
    }

    /// Puts a message among those that are sent to the group's members, but for one that has it already. Says what
    /// this adds to the work, in sends.
    pub(crate) fn add(&mut self, group: u64, message: &Prepared, sender: Option<Key>) -> usize {
        let Some(local) = self.groups.get_mut(&group) else { return 0 };
        let members = local.members.len();
        let work = if local.batch.is_none() {
            self.due.push(group);
            members
        } else {
            members / SENDS_TOGETHER
        };
        let batch = local.batch.get_or_insert_default();
        batch.push(self.count, message.clone());
        self.count += 1;
        if let Some(key) = sender {
            batch.has_all(key);
        }
        self.waiting += message.payload_len() + HEADS;
        work
    }

    /// Whether messages wait for any group.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether that is more than should be kept waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting > WAITING
    }

    /// The groups that messages wait for, which are to be given by [`take_batch`](Self::take_batch) before others are
    /// added.
    pub(crate) fn take_due(&mut self) -> Vec<u64> {
        self.waiting = 0;
        std::mem::take(&mut self.due)
    }

    /// `None`: its last member has left, or it was there twice.
    pub(crate) fn take_batch(&mut self, group: u64) -> Option<Box<Batch>> {
        self.groups.get_mut(&group)?.batch.take()
    }

    /// Whether a connection is in several groups: what waits for it is in several places.
    pub(crate) fn is_in_several(&self, first: Memberships) -> bool {
        self.memberships.get(first.0 as usize).is_some_and(|first| first.next != u32::MAX)
    }

    /// What waits for this connection, in order, and does no longer.
    pub(crate) fn catch_up(&mut self, first: Memberships, key: Key, missed: &mut Vec<Numbered>) {
        let mut place = first.0;
        while let Some(membership) = self.memberships.get(place as usize) {
            place = membership.next;
            let local = self.groups.get_mut(&membership.group);
            let Some(batch) = local.and_then(|local| local.batch.as_mut()) else { continue };
            let news = batch.for_member(key);
            if !news.is_empty() {
                missed.extend_from_slice(news);
                batch.has_all(key);
            }
        }
        if !missed.is_sorted_by_key(|numbered| numbered.number) {
            missed.sort_unstable_by_key(|numbered| numbered.number);
        }
    }

    /// The members of a group.
    pub(crate) fn members(&self, group: u64) -> impl Iterator<Item = Key> {
        self.groups.get(&group).into_iter().flat_map(|local| local.members.iter().map(|m| m.key))
    }

    /// Whether the connection was not in it before.
    pub(crate) fn join(&mut self, first: &mut Memberships, key: Key, group: &Group) -> bool {
        if self.find(*first, group.id()).is_some() {
            return false;
        }
        let Some(place) = self.place() else { return false };
        let local = self.groups.entry(group.id()).or_insert_with(|| LocalGroup {
            group: group.clone(),
            members: Vec::new(),
            batch: None,
        });
        // What was sent before is not for it.
        if let Some(batch) = &mut local.batch {
            batch.has_all(key);
        }
        // No more members than connections, which are numbered by 32 bits.
        let position = local.members.len() as u32;
        local.members.push(Member { key, membership: place });
        if let Some(membership) = self.memberships.get_mut(place as usize) {
            *membership = Membership { group: group.id(), position, next: first.0 };
        }
        *first = Memberships(place);
        group.count(self.thread, 1);
        true
    }

    pub(crate) fn leave(&mut self, first: &mut Memberships, group: &Group) {
        let Some(place) = self.find(*first, group.id()) else { return };
        let next = self.next(place);
        if first.0 == place {
            *first = Memberships(next);
        } else {
            let mut before = first.0;
            while self.next(before) != place {
                before = self.next(before);
            }
            if let Some(membership) = self.memberships.get_mut(before as usize) {
                membership.next = next;
            }
        }
        self.remove(place);
    }

    pub(crate) fn leave_all(&mut self, first: &mut Memberships) {
        while first.0 != u32::MAX {
            let place = first.0;
            *first = Memberships(self.next(place));
            self.remove(place);
        }
    }

    pub(crate) fn is_member(&self, first: Memberships, group: &Group) -> bool {
        self.find(first, group.id()).is_some()
    }

    fn find(&self, first: Memberships, group: u64) -> Option<u32> {
        let mut place = first.0;
        while let Some(membership) = self.memberships.get(place as usize) {
            if membership.group == group {
                return Some(place);
            }
            place = membership.next;
        }
        None
    }

    fn next(&self, place: u32) -> u32 {
        self.memberships.get(place as usize).map_or(u32::MAX, |membership| membership.next)
    }

    /// A free place for a membership.
    fn place(&mut self) -> Option<u32> {
        if self.free == u32::MAX {
            let place = u32::try_from(self.memberships.len()).ok().filter(|n| *n < u32::MAX)?;
            self.memberships.push(Membership { group: 0, position: 0, next: u32::MAX });
            return Some(place);
        }
        let place = self.free;
        self.free = self.next(place);
        Some(place)
    }

    /// Takes a membership out of its group and frees its place.
    fn remove(&mut self, place: u32) {
        let Some(membership) = self.memberships.get_mut(place as usize) else { return };
        let Membership { group, position, .. } = *membership;
        membership.next = self.free;
        self.free = place;
        let Some(local) = self.groups.get_mut(&group) else { return };
        if local.members.len() <= position as usize {
            return;
        }
        local.members.swap_remove(position as usize);
        if let Some(moved) = local.members.get(position as usize) {
            if let Some(membership) = self.memberships.get_mut(moved.membership as usize) {
                membership.position = position;
            }
        }
        local.group.count(self.thread, -1);
        if local.members.is_empty() {
            self.groups.remove(&group);
        } else if local.members.capacity() > 64
            && local.members.len() < local.members.capacity() / 4
        {
            local.members.shrink_to(local.members.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(place: u32) -> Key {
        Key { place, generation: 0 }
    }

    fn places(roster: &Roster, group: &Group) -> Vec<u32> {
        let mut places: Vec<u32> = roster.members(group.id()).map(|key| key.place).collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn members_come_and_go_in_any_order() {
        let threads: Arc<[Arc<Mailbox>]> = [Arc::default()].into();
        let (red, blue) = (Group::new(&threads), Group::new(&threads));
        let mut roster = Roster::new(0);
        let mut firsts = [Memberships::NONE; 5];
        for (place, first) in firsts.iter_mut().enumerate() {
            assert!(roster.join(first, key(place as u32), &red));
            assert!(!roster.join(first, key(place as u32), &red), "once");
            if place % 2 == 0 {
                assert!(roster.join(first, key(place as u32), &blue));
            }
        }
        assert_eq!((red.len(), blue.len()), (5, 3));
        assert!(roster.is_member(firsts[0], &blue) && !roster.is_member(firsts[1], &blue));

        roster.leave(&mut firsts[0], &red);
        assert!(roster.is_member(firsts[0], &blue));
        roster.leave(&mut firsts[1], &blue);
        assert_eq!(places(&roster, &red), [1, 2, 3, 4]);
        roster.leave_all(&mut firsts[2]);
        assert_eq!(firsts[2], Memberships::NONE);
        assert_eq!((places(&roster, &red), places(&roster, &blue)), (vec![1, 3, 4], vec![0, 4]));

        for first in &mut firsts {
            roster.leave_all(first);
        }
        assert!(red.is_empty() && blue.is_empty() && roster.groups.is_empty());
        let places = roster.memberships.len();
        for (place, first) in firsts.iter_mut().enumerate() {
            roster.join(first, key(place as u32), &red);
        }
        assert_eq!(roster.memberships.len(), places, "free places come first");
    }
}
