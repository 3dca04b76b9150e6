//! Reads a JSON body field by field and collects everything that is wrong with it, each with its JSON pointer, instead
//! of stopping at the first.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problems::Problem;
use crate::model::{Invalid, limits};

/// Faults that are listed; the rest of a body that is nothing but faults is not worth the answer.
const FAULTS_MAX: usize = 50;
/// Lists and objects within each other.
const DEPTH_MAX: usize = 64;

/// Something that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// Where in the body: a JSON pointer (RFC 6901), empty for the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// Or which parameter of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// What is wrong, in words.
    detail: String,
}

impl Fault {
    /// At this place of the body.
    pub(super) fn at(pointer: &str, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    /// The body as a whole.
    pub(super) fn body(detail: impl Into<String>) -> Self {
        Self::at("", detail)
    }

    /// In the query.
    pub(super) fn query(parameter: &str, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(parameter.into()), detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_deref().or(self.parameter.as_deref()) {
            Some("") | None => write!(f, "{}", self.detail),
            Some(place) => write!(f, "{place}: {}", self.detail),
        }
    }
}

/// Reads a body with `read`. Its `None`, or any fault noted on the way, is a 422 that names all faults. An empty body is
/// as good as `{}`.
pub(super) fn parse<T>(body: &[u8], read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Result<T, Problem> {
    let value = if body.trim_ascii().is_empty() {
        Value::Object(Map::new())
    } else {
        serde_json::from_slice::<Unique>(body).map_err(unread)?.0
    };
    let faults = RefCell::default();
    let root = Node { value: &value, pointer: String::new(), faults: &faults };
    let read = root.object(read).flatten();
    match read {
        Some(read) if faults.borrow().is_empty() => Ok(read),
        _ => Err(Problem::invalid(faults.take())),
    }
}

/// Why a body could not be read. What [`UniqueValue`] refuses is JSON all the same.
fn unread(error: serde_json::Error) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => Problem::invalid(vec![Fault::body(error.to_string())]),
        _ => Problem::not_json(error),
    }
}

/// The members of an object. Those that nobody asked for are faults.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    pointer: String,
    faults: &'a RefCell<Vec<Fault>>,
    known: Vec<&'static str>,
}

/// A value and where it stands.
pub(super) struct Node<'a> {
    value: &'a Value,
    pointer: String,
    faults: &'a RefCell<Vec<Fault>>,
}

impl<'a> Fields<'a> {
    /// A member that may be absent or null.
    pub(super) fn optional(&mut self, name: &'static str) -> Option<Node<'a>> {
        self.known.push(name);
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Node { value, pointer: format!("{}/{name}", self.pointer), faults: self.faults })
    }

    /// A member that must be there.
    pub(super) fn required(&mut self, name: &'static str) -> Option<Node<'a>> {
        let node = self.optional(name);
        if node.is_none() {
            note(self.faults, Fault::at(&format!("{}/{name}", self.pointer), "is missing"));
        }
        node
    }

    /// Notes a fault of a member.
    pub(super) fn fault(&self, name: &str, detail: impl Into<String>) {
        note(self.faults, Fault::at(&format!("{}/{name}", self.pointer), detail));
    }

    fn refuse_unknown(&self) {
        let hint = match self.known.join(", ") {
            none if none.is_empty() => ": nothing may be given here".to_owned(),
            known => format!("; known are {known}"),
        };
        for name in self.map.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            let shown: String = escaped.chars().take(limits::TEXT_BYTES_MAX).collect();
            self.fault(&shown, format!("is unknown{hint}"));
        }
    }
}

impl<'a> Node<'a> {
    /// Notes what is wrong with the value.
    pub(super) fn fault<T>(&self, detail: impl Into<String>) -> Option<T> {
        note(self.faults, Fault::at(&self.pointer, detail));
        None
    }

    /// An object, read by `read`.
    pub(super) fn object<T>(self, read: impl FnOnce(&mut Fields<'a>) -> T) -> Option<T> {
        let Value::Object(map) = self.value else { return self.fault("must be an object") };
        let mut fields = Fields { map, pointer: self.pointer, faults: self.faults, known: Vec::new() };
        let read = read(&mut fields);
        fields.refuse_unknown();
        Some(read)
    }

    /// A list of so many elements.
    pub(super) fn list(self, count: RangeInclusive<usize>) -> Option<Vec<Node<'a>>> {
        let Value::Array(values) = self.value else { return self.fault("must be a list") };
        if !count.contains(&values.len()) {
            return self.fault(format!("must have {} to {} elements", count.start(), count.end()));
        }
        let element =
            |(index, value)| Node { value, pointer: format!("{}/{index}", self.pointer), faults: self.faults };
        Some(values.iter().enumerate().map(element).collect())
    }

    /// A text with a meaning.
    pub(super) fn text<T: FromStr<Err = Invalid>>(self) -> Option<T> {
        let Value::String(text) = self.value else { return self.fault("must be a string") };
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(Invalid(why)) => self.fault(why),
        }
    }

    /// A text for people: 1 to so many bytes, no control characters.
    pub(super) fn prose(self) -> Option<String> {
        let Value::String(text) = self.value else { return self.fault("must be a string") };
        let max = limits::NAME_BYTES_MAX;
        if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
            return self.fault(format!("must have 1 to {max} bytes, not all blank, and no control characters"));
        }
        Some(text.clone())
    }

    /// A whole number in a range.
    pub(super) fn whole(self, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value.as_i64().filter(|number| range.contains(number)) {
            None => self.fault(format!("must be a whole number from {} to {}", range.start(), range.end())),
            number => number,
        }
    }

    /// True or false.
    pub(super) fn flag(self) -> Option<bool> {
        match self.value.as_bool() {
            None => self.fault("must be true or false"),
            flag => flag,
        }
    }

    /// A number of units in a range.
    pub(super) fn count(self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.whole(i64::from(*range.start())..=i64::from(*range.end()))?;
        u32::try_from(number).ok()
    }
}

fn note(faults: &RefCell<Vec<Fault>>, fault: Fault) {
    let mut faults = faults.borrow_mut();
    if faults.len() < FAULTS_MAX {
        faults.push(fault);
    }
}

/// A JSON value whose objects name no member twice: readers disagree on which of the two counts.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UniqueValue { depth: 0 }.deserialize(deserializer).map(Unique)
    }
}

/// A value within so many others.
#[derive(Clone, Copy)]
struct UniqueValue {
    depth: usize,
}

impl UniqueValue {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("lists and objects stand in each other more than {DEPTH_MAX} times")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for UniqueValue {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            list.push(element);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                let shown: String = name.chars().take(limits::TEXT_BYTES_MAX).collect();
                return Err(A::Error::custom(format_args!("an object names its member {shown:?} twice")));
            }
            map.insert(name, members.next_value_seed(inner)?);
        }
        Ok(map.into())
    }
}

/// Which elements repeat an earlier one, by index.
pub(super) fn repeated<T: std::hash::Hash + Eq>(elements: impl IntoIterator<Item = T>) -> Vec<usize> {
    let mut seen = HashSet::new();
    let again = |(index, element)| (!seen.insert(element)).then_some(index);
    elements.into_iter().enumerate().filter_map(again).collect()
}
