//! Where RabbitMQ is, who answers there, and why it cannot be used, in sentences that never show the password.

use std::fmt;
use std::io;
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::protocol::AMQPErrorKind;
use lapin::tcp::{AMQPUriTcpExt, TLSConfig};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, ErrorKind};

use crate::remote::Unusable;

/// How long a server may take for each step of a greeting.
const GREETING_TIME_MAX: Duration = Duration::from_secs(3);
/// How long either side may stay silent, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;
/// The first version whose quorum queues hand over dead letters without losing any.
const VERSION_MIN: (u32, u32) = (3, 10);
/// "AMQP", version 0-9-1.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The server's greeting is one frame, no larger than this.
const GREETING_BYTES_MAX: usize = 16 * 1024;

/// A checked URL. Shows itself without user and password.
pub(super) struct Address {
    uri: AMQPUri,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{scheme}://{}:{}, virtual host `{vhost}`", authority.host, authority.port)
    }
}

impl Address {
    /// Reads `amqp://user:password@host:port/vhost`, or `amqps://…` for TLS; without a virtual host it is `/`.
    pub(super) fn new(url: &str) -> Result<Self, Unusable> {
        let malformed = || {
            let good = "amqp://user:password@host:5672/vhost, or amqps:// for TLS";
            Unusable::Wrong(format!("it is not a URL of a RabbitMQ server: write {good}"))
        };
        // The parser's own words would repeat the URL, with the password.
        let mut uri: AMQPUri = url.trim().parse().map_err(|_| malformed())?;
        if let Some(host) = bracketed_host(url) {
            uri.authority.host = host.to_owned();
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self { uri })
    }

    /// A connection to a RabbitMQ that is new enough.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, Unusable> {
        self.greet().await?;
        let options = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = Connection::connect_uri(self.uri.clone(), options);
        match tokio::time::timeout(GREETING_TIME_MAX, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.unusable(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// Asks who is there before anything else is sent: a silent or foreign server would keep the client library waiting
    /// for ever, and the library does not say which version answered.
    async fn greet(&self) -> Result<(), Unusable> {
        let greeting = async {
            let mut stream = self.open().await?;
            stream.write_all(PROTOCOL_HEADER).await.map_err(|error| self.lost(&error))?;
            stream.flush().await.map_err(|error| self.lost(&error))?;
            let mut head = [0; 7];
            // A proxy whose RabbitMQ is not there hangs up without a word; whoever says something else is not RabbitMQ.
            if stream.read(&mut head[..1]).await.map_err(|error| self.lost(&error))? == 0 {
                return Err(self.silent());
            }
            stream.read_exact(&mut head[1..]).await.map_err(|error| self.lost(&error))?;
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            if &head[..4] == b"AMQP" || head[..3] != [1, 0, 0] || size > GREETING_BYTES_MAX {
                return Err(self.foreign());
            }
            let mut body = vec![0; size];
            stream.read_exact(&mut body).await.map_err(|error| self.lost(&error))?;
            // Class and method `connection.start`, two bytes each, and the protocol's version, one byte each.
            let properties = body.get(6..).filter(|_| body.starts_with(&[0, 10, 0, 10]));
            let properties = properties.and_then(|bytes| parse_field_table(bytes).ok());
            let (_, properties) = properties.ok_or_else(|| self.foreign())?;
            self.judge(&properties)
        };
        tokio::time::timeout(GREETING_TIME_MAX, greeting).await.unwrap_or_else(|_| Err(self.silent()))
    }

    async fn open(&self) -> Result<impl AsyncRead + AsyncWrite + Unpin, Unusable> {
        let runtime = lapin::runtime::default_runtime().map_err(|error| Unusable::Wrong(error.to_string()))?;
        let opened = self.uri.connect_with_config_async(TLSConfig::default(), &runtime).await;
        opened.map_err(|error| match (&self.uri.scheme, error.kind()) {
            (AMQPScheme::AMQPS, io::ErrorKind::InvalidData | io::ErrorKind::Other | io::ErrorKind::InvalidInput) => {
                Unusable::Wrong(format!("no TLS with the server at {self}: {error}"))
            }
            _ => Unusable::NotYet(format!("no connection to {self}: {error}")),
        })
    }

    fn judge(&self, properties: &FieldTable) -> Result<(), Unusable> {
        let text = |key: &str| match properties.inner().get(key) {
            Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            _ => String::new(),
        };
        let (product, version) = (text("product"), text("version"));
        if product != "RabbitMQ" {
            return Err(Unusable::Wrong(format!("the server at {self} is {product:?}, not RabbitMQ")));
        }
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION_MIN {
            let (major, minor) = VERSION_MIN;
            let why = format!("the RabbitMQ at {self} is {version}; Sluice needs {major}.{minor} or later");
            return Err(Unusable::Wrong(why));
        }
        Ok(())
    }

    fn foreign(&self) -> Unusable {
        Unusable::Wrong(format!("what answers at {self} is not RabbitMQ"))
    }

    fn silent(&self) -> Unusable {
        Unusable::NotYet(format!("nothing answers at {self}"))
    }

    fn lost(&self, error: &io::Error) -> Unusable {
        match error.kind() {
            // It said less than a greeting and left.
            io::ErrorKind::UnexpectedEof => self.foreign(),
            _ => Unusable::NotYet(format!("no connection to {self}: {error}")),
        }
    }

    /// What an answer of the server means for the operator.
    pub(super) fn unusable(&self, error: &lapin::Error) -> Unusable {
        let ErrorKind::ProtocolError(refusal) = error.kind() else {
            return Unusable::NotYet(format!("no connection to {self}: {error}"));
        };
        let said = refusal.get_message().to_string();
        match (refusal.kind(), refusal.get_id()) {
            // Its virtual hosts come up one by one after a crash.
            _ if said.contains("is down") => Unusable::NotYet(format!("RabbitMQ at {self} is starting: {said}")),
            (_, 403) if said.contains("Login was refused") => {
                let user = &self.uri.authority.userinfo.username;
                Unusable::Wrong(format!("RabbitMQ at {self} refuses user {user:?}: wrong name or password"))
            }
            (_, 403) => {
                Unusable::Wrong(format!("RabbitMQ at {self} forbids it: {said}. Give the user all permissions"))
            }
            (_, 530) => {
                let advice = "Create it, and permit the user to use it, or name another in the URL";
                Unusable::Wrong(format!("RabbitMQ at {self} does not let us in: {said}. {advice}"))
            }
            (_, 406) => {
                let advice = "Delete what is named there once it is empty, or use a virtual host of its own";
                Unusable::Wrong(format!(
                    "RabbitMQ at {self} has a queue or exchange with other settings: {said}. {advice}"
                ))
            }
            (AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_), _) => {
                Unusable::NotYet(format!("RabbitMQ at {self} fails: {said}"))
            }
        }
    }
}

/// The host of `scheme://[v6]:port/`, which the URL parser of the client library leaves out.
fn bracketed_host(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::super::topology::table;
    use super::*;

    fn judged(product: &str, version: &str) -> Result<(), Unusable> {
        let text = |value: &str| AMQPValue::LongString(value.into());
        let address = Address::new("amqp://user:canary@rabbit/vhost").unwrap();
        address.judge(&table([("product", text(product)), ("version", text(version))]))
    }

    #[test]
    fn old_and_foreign_servers_are_named() {
        for version in ["3.10.0", "3.13.7", "4.0.9", "10.1"] {
            judged("RabbitMQ", version).unwrap();
        }
        for (product, version, named) in [
            ("RabbitMQ", "3.9.29", "3.9.29"),
            ("RabbitMQ", "2.8.7", "2.8.7"),
            ("LavinMQ", "2.0.0", "LavinMQ"),
            ("", "", "not RabbitMQ"),
        ] {
            let said = judged(product, version).unwrap_err().to_string();
            assert!(said.contains(named) && !said.contains("canary"), "{said}");
        }
    }

    #[test]
    fn an_address_shows_no_secret() {
        let shown = |url: &str| Address::new(url).unwrap().to_string();
        assert_eq!(shown("amqp://user:canary@rabbit:5673/shop"), "amqp://rabbit:5673, virtual host `shop`");
        assert_eq!(shown("amqps://user:can%40ary@rabbit"), "amqps://rabbit:5671, virtual host `/`");
        assert_eq!(shown("amqp://user:canary@rabbit/"), "amqp://rabbit:5672, virtual host `/`");
        assert_eq!(shown("amqp://user:canary@[::1]:5673/%2f"), "amqp://::1:5673, virtual host `/`");
    }
}
