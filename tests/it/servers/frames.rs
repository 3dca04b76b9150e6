//! Parts a stream of bytes into the messages of its protocol, so that a proxy can strike exactly before one of them.

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp,
    Redis,
    Postgres,
    Http,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What a message is, as far as a fault may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Other,
    /// `basic.publish`: a push, with its content behind it.
    Publish,
    /// `basic.ack`: RabbitMQ confirms a push, or a worker acknowledges what it settled.
    Ack,
    /// What a script of the gate answers.
    Reply,
    /// The client's commit, or the server's word that it is done.
    Commit,
    /// An HTTP answer, from its status line on.
    Answer,
}

/// One direction of one connection.
pub(crate) struct Frames {
    protocol: Protocol,
    side: Side,
    /// Whether the first message that looks like the later ones has come.
    begun: bool,
    bytes: Vec<u8>,
}

const AMQP_GREETING: usize = 8;
const AMQP_METHOD: u8 = 1;
const BASIC: u16 = 60;
const BASIC_PUBLISH: u16 = 40;
const BASIC_ACK: u16 = 80;
const POSTGRES_TLS_REQUEST: usize = 80_877_103;

impl Frames {
    pub(crate) fn new(protocol: Protocol, side: Side) -> Self {
        Self { protocol, side, begun: false, bytes: Vec::new() }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        let length = self.length().filter(|length| (1..=self.bytes.len()).contains(length))?;
        let rest = self.bytes.split_off(length);
        let message = std::mem::replace(&mut self.bytes, rest);
        let kind = self.kind(&message);
        // Behind a question for TLS, and its answer of one letter, the connection begins again.
        let asks_for_tls = number(&message, 4) == Some(POSTGRES_TLS_REQUEST) && message.len() == 8;
        self.begun |= !asks_for_tls && message.len() > 1;
        Some((kind, message))
    }

    /// What is left of a message that never became whole.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.bytes
    }

    /// How long the first message is, if that can be told yet.
    fn length(&self) -> Option<usize> {
        let bytes = self.bytes.as_slice();
        match (self.protocol, self.side) {
            (Protocol::Redis | Protocol::Http, Side::Client) => Some(bytes.len()),
            (Protocol::Redis, Side::Server) => redis_value(bytes),
            (Protocol::Http, Side::Server) => http_answer(bytes),
            (Protocol::Amqp, _) if bytes.starts_with(b"AMQP") => Some(AMQP_GREETING),
            (Protocol::Amqp, _) => Some(number(bytes, 3)? + 8),
            (Protocol::Postgres, Side::Client) if !self.begun => number(bytes, 0),
            (Protocol::Postgres, Side::Server) if !self.begun && matches!(bytes, [b'N' | b'S', ..]) => Some(1),
            (Protocol::Postgres, _) => Some(number(bytes, 1)? + 1),
        }
    }

    fn kind(&self, message: &[u8]) -> Kind {
        match (self.protocol, self.side) {
            (Protocol::Amqp, _) => amqp_kind(message),
            // The scripts answer with lists; nothing else of the server does.
            (Protocol::Redis, Side::Server) if message.starts_with(b"*") => Kind::Reply,
            (Protocol::Postgres, Side::Client) if self.begun && is_commit(message) => Kind::Commit,
            (Protocol::Postgres, Side::Server) if message.starts_with(b"C") && message.ends_with(b"COMMIT\0") => {
                Kind::Commit
            }
            (Protocol::Http, Side::Server) if message.starts_with(b"HTTP/1.") => Kind::Answer,
            _ => Kind::Other,
        }
    }
}

fn amqp_kind(message: &[u8]) -> Kind {
    let word = |at: usize| message.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    match (message.first(), word(7), word(9)) {
        (Some(&AMQP_METHOD), Some(BASIC), Some(BASIC_PUBLISH)) => Kind::Publish,
        (Some(&AMQP_METHOD), Some(BASIC), Some(BASIC_ACK)) => Kind::Ack,
        _ => Kind::Other,
    }
}

fn is_commit(message: &[u8]) -> bool {
    message.starts_with(b"Q") && message.to_ascii_lowercase().ends_with(b"commit\0")
}

/// Four bytes, the highest first.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?;
    Some(usize::from(four[0]) << 24 | usize::from(four[1]) << 16 | usize::from(four[2]) << 8 | usize::from(four[3]))
}

/// How long the first value is.
fn redis_value(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&bytes[1..end - 2]).ok()?.parse::<i64>().ok();
    let values = |count: i64| (0..count).try_fold(end, |at, _| Some(at + redis_value(bytes.get(at..)?)?));
    match bytes[0] {
        b'$' | b'=' | b'!' => Some(usize::try_from(count()?).map_or(end, |length| end + length + 2)),
        b'*' | b'~' | b'>' => values(count()?),
        b'%' => values(2 * count()?),
        _ => Some(end),
    }
}

/// An answer that does not say how long it is, is passed on as it comes.
fn http_answer(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    Some(length.map_or(bytes.len(), |length| head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kinds of all messages, however the bytes arrive.
    fn kinds(protocol: Protocol, side: Side, bytes: &[u8]) -> Vec<(Kind, usize)> {
        let read = |step: usize| {
            let (mut frames, mut found) = (Frames::new(protocol, side), Vec::new());
            for part in bytes.chunks(step) {
                frames.add(part);
                while let Some((kind, message)) = frames.next() {
                    found.push((kind, message.len()));
                }
            }
            assert!(frames.rest().is_empty(), "a part is left");
            found
        };
        let whole = read(bytes.len());
        let raw = matches!((protocol, side), (Protocol::Redis | Protocol::Http, Side::Client));
        if !raw {
            assert_eq!(read(1), whole, "byte by byte");
        }
        whole
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 7][..], &size, payload, &[0xce]].concat()
    }

    #[test]
    fn an_acknowledgement_is_told_from_a_publish_and_from_content_that_looks_like_it() {
        let ack = frame(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let publish = frame(1, &[0, 60, 0, 40, 0, 0, 0, 0, 0]);
        let content = frame(3, &[0, 60, 0, 80]);
        let stream = [b"AMQP\0\0\x09\x01".to_vec(), publish.clone(), content.clone(), ack.clone()].concat();
        assert_eq!(
            kinds(Protocol::Amqp, Side::Client, &stream),
            [(Kind::Other, 8), (Kind::Publish, publish.len()), (Kind::Other, content.len()), (Kind::Ack, ack.len())]
        );
    }

    #[test]
    fn a_reply_of_a_script_is_a_whole_list() {
        let stream = b"%1\r\n+server\r\n$5\r\nredis\r\n*3\r\n:1\r\n*2\r\n$-1\r\n$4\r\n*1\r\n\r\n+x\r\n-NOSCRIPT no\r\n>1\r\n:1\r\n";
        let kinds: Vec<Kind> = kinds(Protocol::Redis, Side::Server, stream).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Other, Kind::Reply, Kind::Other, Kind::Other]);
    }

    #[test]
    fn a_commit_is_seen_on_both_sides_behind_a_refused_tls() {
        let said = |letter: &[u8], text: &[u8]| {
            let length = u32::try_from(text.len() + 4).unwrap().to_be_bytes();
            [letter, &length, text].concat()
        };
        let tls = [8_u32.to_be_bytes(), u32::try_from(POSTGRES_TLS_REQUEST).unwrap().to_be_bytes()].concat();
        let start = said(b"", b"\0\x03\0\0user\0sluice\0\0");
        let client = [tls, start, said(b"Q", b"begin\0"), said(b"Q", b"/* commit */ commit\0")].concat();
        let seen: Vec<Kind> = kinds(Protocol::Postgres, Side::Client, &client).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(seen, [Kind::Other, Kind::Other, Kind::Other, Kind::Commit]);
        let server = [b"N".to_vec(), said(b"R", b"\0\0\0\0"), said(b"N", b"note\0"), said(b"C", b"COMMIT\0")].concat();
        let seen: Vec<Kind> = kinds(Protocol::Postgres, Side::Server, &server).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(seen, [Kind::Other, Kind::Other, Kind::Other, Kind::Commit]);
    }

    #[test]
    fn an_answer_reaches_to_the_end_of_its_body() {
        let one = "HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nyes";
        let two = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let seen = kinds(Protocol::Http, Side::Server, [one, two].concat().as_bytes());
        assert_eq!(seen, [(Kind::Answer, one.len()), (Kind::Answer, two.len())]);
    }
}
