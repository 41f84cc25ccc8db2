//! A value that may be replaced while the coordinator runs.

use std::sync::Arc;

use parking_lot::RwLock;

/// The current value of something. Clones share it: whoever has one sees what is set later.
#[derive(Debug)]
pub struct Current<T>(Arc<RwLock<Arc<T>>>);

impl<T> Current<T> {
    /// With this value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The value as it is now. It does not change for whoever holds it.
    pub fn get(&self) -> Arc<T> {
        self.0.read().clone()
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Default for Current<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_see_what_is_set_and_who_holds_a_value_keeps_it() {
        let current = Current::new(1);
        let (held, other) = (current.get(), current.clone());
        current.set(2);
        assert_eq!((*held, *other.get()), (1, 2));
    }
}
