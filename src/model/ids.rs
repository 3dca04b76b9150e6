//! Names and numbers that must not be mistaken for each other.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::{Invalid, limits};

/// A checked text: cheap to clone, ordered, written to JSON as a string, and checked again when read from it.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text; the error says what a good one looks like.
            pub fn new(text: &str) -> Result<Self, Invalid> {
                $check(text).map(|()| Self(text.into()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(&text)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// The id of a sale: `sal_…` unless its operator chose one.
    SaleId, |text: &str| plain("a sale's id", text)
);
text_id!(
    /// The thing that sells out.
    Sku, |text: &str| plain("a SKU", text)
);
text_id!(
    /// Who orders, in the shop's own words; Sluice only compares it.
    Customer, |text: &str| printable("a customer", text)
);

/// Letters, digits and `. _ - :`, so that it stands in a URL, a metric and a file name as it is.
fn plain(what: &str, text: &str) -> Result<(), Invalid> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && text.len() <= limits::ID_BYTES_MAX && text.chars().all(good) {
        return Ok(());
    }
    let max = limits::ID_BYTES_MAX;
    Err(Invalid(format!(
        "{what} has 1 to {max} letters, digits, or any of `. _ - :`, and starts with a letter or digit"
    )))
}

fn printable(what: &str, text: &str) -> Result<(), Invalid> {
    if !text.is_empty() && text.len() <= limits::TEXT_BYTES_MAX && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let max = limits::TEXT_BYTES_MAX;
    Err(Invalid(format!("{what} has 1 to {max} bytes and no control characters")))
}

/// The id of an order: unguessable, and what its holder shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct OrderId(pub [u8; 16]);

impl OrderId {
    /// Lends it as it is written.
    fn written<T>(self, with: impl FnOnce(&str) -> T) -> T {
        let mut text = *b"ord_00000000000000000000000000000000";
        hex::encode_to_slice(self.0, &mut text[4..]).expect("16 bytes are 32 digits");
        with(std::str::from_utf8(&text).expect("digits are text"))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written(|text| f.write_str(text))
    }
}

impl Serialize for OrderId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written(|text| serializer.serialize_str(text))
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<OrderId> for String {
    fn from(id: OrderId) -> String {
        id.to_string()
    }
}

impl FromStr for OrderId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        text.strip_prefix("ord_")
            .filter(|hex| hex.len() == 32 && hex.chars().all(lower))
            .and_then(|hex| u128::from_str_radix(hex, 16).ok())
            .map(|number| OrderId(number.to_be_bytes()))
            .ok_or_else(|| Invalid("an order's id is `ord_` and 32 hexadecimal digits".into()))
    }
}

impl TryFrom<String> for OrderId {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

/// Finds an order by its id as it is: the ids of orders are keyed hashes. For tables that hold no id that a client named.
pub type ByItself = BuildHasherDefault<IdHasher>;

/// Its last bytes are as good as a hash of it.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut last = [0; 8];
        let count = bytes.len().min(last.len());
        last[..count].copy_from_slice(&bytes[bytes.len() - count..]);
        self.0 ^= u64::from_le_bytes(last);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Derives order ids from sale, customer and idempotency key under a secret of the deployment, so that a retry leads to
/// the same order on every node with no table of keys, and nobody else can name it.
#[derive(Clone)]
pub struct Mint {
    secret: [u8; 32],
}

impl Mint {
    /// A mint with the deployment's secret, which the ledger keeps.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The id of this customer's order under this key: always the same. `purpose` keeps orders and withdrawals apart.
    pub fn id(&self, purpose: &str, sale: &SaleId, who: &str, key: &str) -> OrderId {
        let mut text = Vec::with_capacity(256);
        for part in [purpose, sale.as_str(), who, key] {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::keyed_hash(&self.secret, &text).as_bytes()[..16]);
        OrderId(id)
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mint(…)")
    }
}

/// One life of the gate's memory of a sale. The first is 1; 0 is "never loaded".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The first life of a gate.
    pub const FIRST: Epoch = Epoch(1);
}

/// A position in a sale's journal. The first event has 1; 0 is "before everything".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
