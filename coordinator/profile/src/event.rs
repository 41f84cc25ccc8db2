//! One entry of a profile, in Chrome's Trace Event Format as Bazel writes it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Longest text that is kept, in bytes.
const TEXT: usize = 240;
/// Largest time, in microseconds: 30 years.
const TIME: f64 = 1e15;

/// What is read of an entry.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) category: String,
    pub(crate) name: String,
    /// `X`: something that took time; `i`: a moment.
    pub(crate) phase: String,
    /// Microseconds since the invocation began; before it for what the client did.
    pub(crate) at: i64,
    pub(crate) took: i64,
    pub(crate) target: String,
    pub(crate) mnemonic: String,
}

/// A value of which only a kind is wanted.
enum Scalar {
    Text(String),
    Number(f64),
    Args(String, String),
    Other,
}

impl Scalar {
    fn text(self) -> String {
        if let Self::Text(text) = self { text } else { String::new() }
    }

    fn time(self) -> i64 {
        if let Self::Number(number) = self { number.clamp(-TIME, TIME) as i64 } else { 0 }
    }
}

fn cut(text: &str) -> String {
    let end = (0..=TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(cut(text)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Scalar, A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Scalar, A::Error> {
        let (mut target, mut mnemonic) = (String::new(), String::new());
        while let Some(key) = all.next_key::<Key>()? {
            match key.0.as_str() {
                "target" => target = all.next_value::<Scalar>()?.text(),
                "mnemonic" => mnemonic = all.next_value::<Scalar>()?.text(),
                _ => drop(all.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Scalar::Args(target, mnemonic))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyScalar)
    }
}

/// The name of a field.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(deserializer.deserialize_str(AnyScalar)?.text()))
    }
}

struct AnyEvent;

impl<'de> Visitor<'de> for AnyEvent {
    type Value = Event;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an entry of a profile")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Event, A::Error> {
        let mut event = Event::default();
        while let Some(key) = all.next_key::<Key>()? {
            match key.0.as_str() {
                "cat" => event.category = all.next_value::<Scalar>()?.text(),
                "name" => event.name = all.next_value::<Scalar>()?.text(),
                "ph" => event.phase = all.next_value::<Scalar>()?.text(),
                "ts" => event.at = all.next_value::<Scalar>()?.time(),
                "dur" => event.took = all.next_value::<Scalar>()?.time().max(0),
                "args" => {
                    if let Scalar::Args(target, mnemonic) = all.next_value()? {
                        (event.target, event.mnemonic) = (target, mnemonic);
                    }
                }
                _ => drop(all.next_value::<IgnoredAny>()?),
            }
        }
        Ok(event)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnyEvent)
    }
}
