//! Where rendered text goes: measured first, then written into room of that size.

use core::fmt;

/// Counts what is written, and keeps none of it.
#[derive(Debug, Default)]
pub struct Length(usize);

impl Length {
    /// The bytes written so far.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0
    }
}

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_add(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Writes into bytes of somebody else's; an error once they are full.
#[derive(Debug)]
pub struct Page<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Page<'a> {
    /// An empty page in `room`.
    pub fn new(room: &'a mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    /// The bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        let room = self.room.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn measures_what_fits_exactly() {
        let mut length = Length::default();
        write!(length, "{}-ä", 12).unwrap();
        let mut room = vec![0; length.get()];
        let mut page = Page::new(&mut room);
        assert!(page.is_empty());
        write!(page, "{}-ä", 12).unwrap();
        assert_eq!(page.len(), length.get());
        assert!(page.write_str("x").is_err());
        assert_eq!(room, "12-ä".as_bytes());
    }
}
