//! A parcel: what RabbitMQ calls a message. It carries all the claims of one sale and epoch that were pushed together,
//! so that one confirm answers for many.

use std::collections::HashMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::topology::{self, table};
use crate::model::{Body, Epoch, Message, SaleId, limits};

/// The newest way of writing parcels that this program reads. A newer one is left for a newer worker.
const VERSION: i64 = 1;
const CONTENT_TYPE: &str = "application/jsonl";
const PERSISTENT: u8 = 2;

/// One message of RabbitMQ, before it is sent.
pub(super) struct Parcel {
    /// Exchange and routing key.
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    /// One message of the queue's promise a line, in JSON.
    pub(super) body: Vec<u8>,
    /// Which of the messages handed in are in it.
    pub(super) items: Vec<usize>,
}

/// Packs messages of one shard: claims of one sale and epoch travel together, markers alone. What was handed in before a
/// marker is packed before it. A message that cannot be written is left out.
pub(super) fn pack<'a>(shard: usize, messages: impl Iterator<Item = &'a Message>) -> Vec<Parcel> {
    let mut parcels: Vec<Parcel> = Vec::new();
    let mut open: HashMap<(&SaleId, Epoch), usize> = HashMap::new();
    for (item, message) in messages.enumerate() {
        let Ok(mut line) = serde_json::to_vec(message) else { continue };
        line.push(b'\n');
        let is_claim = matches!(message.body, Body::Claim(_));
        let place = (&message.sale, message.epoch);
        let room = |at: &&usize| parcels[**at].body.len() + line.len() <= limits::PARCEL_BYTES_MAX;
        match open.get(&place).filter(room).filter(|_| is_claim) {
            Some(&at) => {
                parcels[at].body.append(&mut line);
                parcels[at].items.push(item);
            }
            None => {
                if is_claim {
                    open.insert(place, parcels.len());
                }
                let (exchange, key) = if is_claim {
                    (topology::CLAIMS.into(), topology::routing_key(&message.sale, message.epoch))
                } else {
                    // The default exchange: no binding is asked, so no fence holds a marker back.
                    ("".into(), topology::queue_name(shard))
                };
                parcels.push(Parcel { exchange, key, body: line, items: vec![item] });
            }
        }
    }
    parcels
}

/// The lines of these messages, as [`pack`] writes them.
pub(super) fn lines(messages: &[Message]) -> Vec<u8> {
    let mut body = Vec::new();
    for message in messages {
        if let Ok(line) = serde_json::to_vec(message) {
            body.extend(line);
            body.push(b'\n');
        }
    }
    body
}

/// The properties of a parcel: `id` is unique on its channel, `pushed_ms` is when it left, `why` is why it was parked.
pub(super) fn properties(id: u64, claims: usize, pushed_ms: i64, why: Option<&str>) -> BasicProperties {
    let mut headers = table([
        ("version", AMQPValue::LongLongInt(VERSION)),
        ("claims", AMQPValue::LongLongInt(i64::try_from(claims).unwrap_or(i64::MAX))),
        ("pushed_ms", AMQPValue::LongLongInt(pushed_ms)),
    ]);
    if let Some(why) = why {
        headers.insert("why".into(), AMQPValue::LongString(why.into()));
    }
    BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id.to_string().into())
        .with_headers(headers)
}

/// What a parcel says.
pub(super) enum Content {
    /// It can be settled.
    Messages {
        /// In the sequence of their pushing.
        messages: Vec<Message>,
        /// When it was pushed.
        pushed_ms: i64,
    },
    /// A newer program wrote it: this one must not touch it.
    Newer(i64),
    /// Nobody can read it, and why.
    Garbage(String),
}

/// Reads a parcel.
pub(super) fn unpack(properties: &BasicProperties, body: &[u8]) -> Content {
    let headers = properties.headers().as_ref();
    match number(headers, "version") {
        Some(version) if version > VERSION => return Content::Newer(version),
        Some(VERSION) => {}
        version => return Content::Garbage(format!("its version is {version:?}")),
    }
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    match lines.map(serde_json::from_slice).collect::<Result<Vec<Message>, _>>() {
        Ok(messages) if messages.is_empty() => Content::Garbage("it is empty".to_owned()),
        Ok(messages) => Content::Messages { messages, pushed_ms: number(headers, "pushed_ms").unwrap_or(0) },
        Err(error) => Content::Garbage(error.to_string()),
    }
}

fn number(headers: Option<&FieldTable>, key: &str) -> Option<i64> {
    match headers?.inner().get(key)? {
        AMQPValue::LongLongInt(value) => Some(*value),
        AMQPValue::LongInt(value) => Some((*value).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Claim, Line, OrderId, Sku, Units, Withdrawal};

    fn claim(sale: &str, epoch: u64, reason: &str) -> Message {
        let line = Line { sku: Sku::new("a").unwrap(), quantity: Units::new(1).unwrap() };
        let sale = SaleId::new(sale).unwrap();
        let withdrawal = Withdrawal { id: OrderId([7; 16]), sale, line, reason: reason.to_owned() };
        Message::claim(Claim::Withdrawal(Arc::new(withdrawal)), Epoch(epoch))
    }

    fn marker(sale: &str) -> Message {
        Message { sale: SaleId::new(sale).unwrap(), epoch: Epoch(1), body: Body::Sweep(1) }
    }

    fn items(messages: &[Message]) -> Vec<Vec<usize>> {
        pack(0, messages.iter()).into_iter().map(|parcel| parcel.items).collect()
    }

    #[test]
    fn one_parcel_for_each_sale_and_epoch() {
        let messages = [claim("s", 1, ""), claim("t", 1, ""), claim("s", 1, ""), claim("s", 2, "")];
        assert_eq!(items(&messages), [vec![0, 2], vec![1], vec![3]]);
        let keys: Vec<String> = pack(0, messages.iter()).iter().map(|parcel| parcel.key.to_string()).collect();
        assert_eq!(keys, ["s.1", "t.1", "s.2"]);
    }

    #[test]
    fn what_was_handed_in_before_a_marker_leaves_before_it() {
        let big = "x".repeat(limits::PARCEL_BYTES_MAX / 2);
        let messages = [claim("s", 1, &big), claim("s", 1, &big), marker("s"), claim("s", 1, "")];
        assert_eq!(items(&messages), [vec![0], vec![1, 3], vec![2]]);
        let parcels = pack(3, messages.iter());
        assert_eq!((parcels[2].exchange.as_str(), parcels[2].key.as_str()), ("", "sluice.claims.3"));
        assert!(parcels.iter().all(|parcel| parcel.body.len() <= limits::PARCEL_BYTES_MAX));
    }

    #[test]
    fn a_parcel_is_read_as_it_was_packed() {
        let messages = vec![claim("s", 1, "with \n and \u{1F389}"), claim("s", 1, "")];
        let properties = properties(1, 2, 12_345, None);
        match unpack(&properties, &lines(&messages)) {
            Content::Messages { messages: read, pushed_ms } => assert_eq!((read, pushed_ms), (messages, 12_345)),
            Content::Newer(_) | Content::Garbage(_) => panic!("it is readable"),
        }
        assert!(matches!(unpack(&properties, b""), Content::Garbage(_)));
        assert!(matches!(unpack(&BasicProperties::default(), b"{}"), Content::Garbage(_)));
    }
}
