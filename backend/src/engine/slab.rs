//! Places for connections: a number each, and a generation that tells a place's occupants apart.
//!
//! In chunks, because a vector that doubles holds its content twice while it grows, and up to twice as much as needed
//! afterwards.

/// Names a connection within its thread; not reused until 2³² others have had the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

impl Key {
    /// As epoll carries it.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }

    pub(crate) fn from_u64(data: u64) -> Key {
        Key { place: data as u32, generation: (data >> 32) as u32 }
    }
}

const CHUNK: usize = 128;

/// A growing table of `T`s.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[Place<T>]>>,
    /// The first free place.
    free: Option<u32>,
    len: usize,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    content: Content<T>,
}

#[derive(Debug)]
enum Content<T> {
    Occupied(T),
    /// With the next free place.
    Free(Option<u32>),
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), free: None, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Places there are, free ones included: the bound of a walk by [`at`](Self::at).
    pub(crate) fn places(&self) -> u32 {
        // `grow` sees to it that they can be numbered.
        (self.chunks.len() * CHUNK) as u32
    }

    /// Takes a place for what `make` makes of its key; `None` if there are 2³² already.
    pub(crate) fn insert(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.free.is_none() {
            self.grow()?;
        }
        let number = self.free?;
        let place = self.place(number)?;
        let Content::Free(next) = place.content else { return None };
        let key = Key { place: number, generation: place.generation };
        place.content = Content::Occupied(make(key));
        self.free = next;
        self.len += 1;
        Some(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.place(key.place)? {
            Place { generation, content: Content::Occupied(value) }
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let next = self.free;
        let place = self.place(key.place)?;
        if place.generation != key.generation || matches!(place.content, Content::Free(_)) {
            return None;
        }
        place.generation = place.generation.wrapping_add(1);
        let content = std::mem::replace(&mut place.content, Content::Free(next));
        self.free = Some(key.place);
        self.len -= 1;
        match content {
            Content::Occupied(value) => Some(value),
            Content::Free(_) => None,
        }
    }

    /// Who has this place.
    pub(crate) fn at(&mut self, number: u32) -> Option<(Key, &mut T)> {
        match self.place(number)? {
            Place { generation, content: Content::Occupied(value) } => {
                Some((Key { place: number, generation: *generation }, value))
            }
            _ => None,
        }
    }

    fn place(&mut self, number: u32) -> Option<&mut Place<T>> {
        let number = number as usize;
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)
    }

    fn grow(&mut self) -> Option<()> {
        let first = u32::try_from(self.chunks.len() * CHUNK).ok()?;
        let end = first.checked_add(CHUNK as u32)?;
        let next = |number: u32| (number + 1 < end).then_some(number + 1);
        let chunk = (first..end)
            .map(|number| Place { generation: 0, content: Content::Free(next(number)) })
            .collect();
        self.chunks.push(chunk);
        self.free = Some(first);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_under_another_key() {
        let mut slab = Slab::new();
        let first = slab.insert(|_| "a").expect("room");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let second = slab.insert(|key| if key == first { "same" } else { "b" }).expect("room");
        assert_eq!(second.place, first.place);
        assert_eq!(slab.get_mut(first), None, "the key of who was there before");
        assert_eq!(slab.get_mut(second), Some(&mut "b"));
        assert_eq!(Key::from_u64(second.to_u64()), second);
    }

    #[test]
    fn it_grows_by_chunks_and_finds_everyone() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..1000).map(|n| slab.insert(|_| n).expect("room")).collect();
        assert_eq!((slab.len(), slab.places()), (1000, 1024));
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(slab.get_mut(*key), Some(&mut n.clone()));
        }
        for key in keys.iter().step_by(2) {
            slab.remove(*key);
        }
        let left = (0..slab.places()).filter(|number| slab.at(*number).is_some()).count();
        assert_eq!((left, slab.len()), (500, 500));
        for n in 0..524 {
            slab.insert(|_| n).expect("room");
        }
        assert_eq!(slab.places(), 1024, "free places come first");
    }
}
