//! Where a database is: its URL, read, with what tokio-postgres does not know of.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::model::limits;
use crate::remote::Unusable;

/// After this time of silence a connection is asked whether it still lives.
const KEEPALIVE_TIME: std::time::Duration = std::time::Duration::from_secs(15);
/// How the protocol asks for TLS; a PostgreSQL server answers with `S` or `N`, and before any login.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Where a database is, and how to talk to it.
pub(super) struct Address {
    pub(super) config: Config,
    /// `None` where TLS is switched off or there is no network.
    pub(super) tls: Option<MakeRustlsConnect>,
    /// For people: everything but the user and the password.
    pub(super) name: String,
}

/// What a URL says about TLS beyond what tokio-postgres reads.
#[derive(Default)]
struct Extras {
    verify: bool,
    roots: Option<String>,
}

impl Address {
    /// Nothing of a text that cannot be read is shown: any part of it may belong to the password.
    pub(super) fn parse(url: &str) -> Result<Self, Unusable> {
        let (plain, extras) =
            if url.contains("://") { split_url(url) } else { split_pairs(url) }.ok_or_else(malformed)?;
        let mut config: Config = plain.parse().map_err(|_| malformed())?;
        let host = config.get_hosts().first().ok_or_else(malformed)?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
        let (place, network) = match host {
            Host::Tcp(host) => (format!("{host}:{port}"), true),
            Host::Unix(path) => (path.display().to_string(), false),
        };
        if [&place, database].iter().any(|part| part.contains('@')) {
            return Err(Unusable::Wrong("the password has to be percent-encoded: write @ as %40".into()));
        }
        let name = format!("PostgreSQL at {place}/{database}");
        if extras.verify {
            config.ssl_mode(SslMode::Require);
        }
        let tls = network && config.get_ssl_mode() != SslMode::Disable;
        let tls = if tls { Some(connector(extras.roots.as_deref())?) } else { None };
        config
            .connect_timeout(limits::LEDGER_CONNECT_TIME_MAX)
            .keepalives_idle(KEEPALIVE_TIME)
            .tcp_user_timeout(limits::LEDGER_TRIP_TIME_MAX)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("sluice");
        }
        Ok(Self { config, tls, name })
    }

    /// Looks closer when no login came about: perhaps it is another kind of server.
    pub(super) async fn explain(&self, unusable: Unusable) -> Unusable {
        let Some(Host::Tcp(host)) = self.config.get_hosts().first() else { return unusable };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let asked = async {
            let mut stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.write_all(&SSL_REQUEST).await?;
            stream.read_u8().await
        };
        match timeout(limits::LEDGER_CONNECT_TIME_MAX, asked).await {
            // E is an error of its own: no connection was free for the question, say.
            Ok(Ok(b'S' | b'N' | b'E')) | Ok(Err(_)) | Err(_) => unusable,
            Ok(Ok(_)) => {
                Unusable::Wrong(format!("what listens at {host}:{port} is not PostgreSQL. Check host and port"))
            }
        }
    }
}

fn malformed() -> Unusable {
    let form = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    Unusable::Wrong(format!("is not an address of PostgreSQL. It looks like {form}, the password percent-encoded"))
}

fn split_url(url: &str) -> Option<(String, Extras)> {
    let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let password_ended = base.contains('@') || !query.contains('@');
    let mut extras = Extras::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        if !extras.takes(key, &decoded(value)?) {
            rest.push(pair);
        }
    }
    (scheme && password_ended).then(|| (format!("{base}?{}", rest.join("&")), extras))
}

/// `key=value` pairs, with values that may stand in quotes.
fn split_pairs(text: &str) -> Option<(String, Extras)> {
    let mut extras = Extras::default();
    let mut rest = String::new();
    let mut left = text.trim();
    while !left.is_empty() {
        let (key, after) = left.split_once('=')?;
        let value_and_more = after.trim_start();
        let end = end_of_value(value_and_more)?;
        let (value, more) = value_and_more.split_at(end);
        let plain = value.trim_matches('\'');
        if !extras.takes(key.trim(), plain) {
            rest.push_str(&format!("{}={value} ", key.trim()));
        }
        left = more.trim_start();
    }
    Some((rest, extras))
}

fn end_of_value(text: &str) -> Option<usize> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return Some(at + 1),
            c if c.is_whitespace() && !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut left = value.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        match (first, rest) {
            (b'%', [high, low, rest @ ..]) => {
                let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(*high)? * 16 + digit(*low)?);
                left = rest;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

impl Extras {
    /// Whether this parameter is one of those that tokio-postgres does not read.
    fn takes(&mut self, key: &str, value: &str) -> bool {
        match (key, value) {
            ("sslmode", "verify-ca" | "verify-full") => self.verify = true,
            ("sslrootcert", "system") => {}
            ("sslrootcert", file) => self.roots = Some(file.to_owned()),
            _ => return false,
        }
        true
    }
}

fn connector(roots: Option<&str>) -> Result<MakeRustlsConnect, Unusable> {
    let mut store = RootCertStore::empty();
    match roots {
        None => drop(store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(file) => {
            let unreadable = |why: String| Unusable::Wrong(format!("cannot read sslrootcert={file}: {why}"));
            let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect)
                .map_err(|error| unreadable(error.to_string()))?;
            if store.add_parsable_certificates(certificates).0 == 0 {
                return Err(unreadable("there is no certificate in it".into()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable::Wrong(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Address::parse(url).map(|address| address.name).unwrap_err().to_string()
    }

    #[test]
    fn urls_and_pairs_are_read() {
        for (text, name, mode) in [
            ("postgres://u:p%40ss@db:5433/shop", "PostgreSQL at db:5433/shop", SslMode::Prefer),
            ("postgresql://u@db/shop?sslmode=disable", "PostgreSQL at db:5432/shop", SslMode::Disable),
            ("postgres://u:p@db/shop?sslmode=verify-full", "PostgreSQL at db:5432/shop", SslMode::Require),
            (
                "host=db user=u password='p p' sslmode='verify-ca' dbname=shop",
                "PostgreSQL at db:5432/shop",
                SslMode::Require,
            ),
            ("host=/run/pg user=u dbname=shop", "PostgreSQL at /run/pg/shop", SslMode::Prefer),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.name.as_str(), address.config.get_ssl_mode()), (name, mode), "{text}");
        }
        let address = Address::parse("host=db user=u password='a \\' b' sslmode=require").unwrap();
        assert_eq!(address.config.get_password(), Some(&b"a ' b"[..]));
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        for text in [
            "postgres://u:hunter2@",
            "postgres://u:p@hunter2@db/shop",
            "postgres://u:pa/hunter2@db:x/shop",
            "postgres://u:pa?hunter2=1@db/shop",
            "postgres://u:p@ss?hunter2=1@db/shop",
            "host=db password=some hunter2",
            "host=db password='hunter2",
            "mysql://u:hunter2@db/shop",
            "hunter2",
            "",
        ] {
            let why = refused(text);
            assert!(!why.contains("hunter2") && why.contains("password"), "{text}: {why}");
        }
    }

    #[test]
    fn a_missing_root_certificate_is_named() {
        let why = refused("postgres://u:p@db/shop?sslrootcert=%2Fno%2Fsuch.pem");
        assert!(why.contains("/no/such.pem"), "{why}");
    }
}
