//! A container whose small numeric keys are reused.

/// Stores items under `u32` keys. Each insert gets a serial that is never reused, so that a stale key is detected.
#[derive(Debug)]
pub struct Slab<T> {
    items: Vec<Option<(u64, T)>>,
    free: Vec<u32>,
    serial: u64,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new(), serial: 0 }
    }
}

impl<T> Slab<T> {
    /// Store `item`; return its key and serial.
    pub fn insert(&mut self, item: T) -> (u32, u64) {
        self.serial += 1;
        let filled = Some((self.serial, item));
        let key = match self.free.pop() {
            Some(key) => {
                self.items[key as usize] = filled;
                key
            }
            None => {
                self.items.push(filled);
                (self.items.len() - 1) as u32
            }
        };
        (key, self.serial)
    }

    /// Remove and return the item under `key`.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let (_, item) = self.items.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(item)
    }

    /// Return the item under `key`.
    pub fn get(&self, key: u32) -> Option<&T> {
        self.items.get(key as usize)?.as_ref().map(|(_, item)| item)
    }

    /// Like `get`, to change the item.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.items.get_mut(key as usize)?.as_mut().map(|(_, item)| item)
    }

    /// Return the item under `key`, if it has this serial.
    pub fn same(&self, key: u32, serial: u64) -> Option<&T> {
        let (kept, item) = self.items.get(key as usize)?.as_ref()?;
        (*kept == serial).then_some(item)
    }

    /// Like `same`, to change the item.
    pub fn same_mut(&mut self, key: u32, serial: u64) -> Option<&mut T> {
        let (kept, item) = self.items.get_mut(key as usize)?.as_mut()?;
        (*kept == serial).then_some(item)
    }

    /// Whether the item under `key` has this serial.
    pub fn is(&self, key: u32, serial: u64) -> bool {
        self.items.get(key as usize).is_some_and(|kept| kept.as_ref().is_some_and(|(kept, _)| *kept == serial))
    }

    /// Return the serial of the item under `key`.
    pub fn serial(&self, key: u32) -> u64 {
        self.items[key as usize].as_ref().expect("a key in use").0
    }

    /// Return the number of items.
    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return all items.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.items.iter().enumerate().filter_map(|(key, kept)| Some((key as u32, &kept.as_ref()?.1)))
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        self.get(key).expect("a key in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.get_mut(key).expect("a key in use")
    }
}
