//! Whether a server is fit to be the gate: the address makes sense, it lets us in, it is Redis or Valkey of version 7 or
//! later, and it forgets nothing by itself. The sentences are for the operator; none of them holds a password.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, ServerErrorKind, Value};

use crate::remote::Unusable;

/// The oldest version that the scripts were written for.
const VERSION_MIN: u32 = 7;

/// What is said of a server that keeps silent.
pub(super) const SILENT: &str = "it does not answer in time";

type Cause = dyn std::error::Error + Send + Sync;

/// Reads the URL.
pub(super) fn address(url: &str) -> Result<ConnectionInfo, Unusable> {
    let info = url.into_connection_info().map_err(|_| {
        Unusable::Wrong(
            "this is not the URL of a Redis server. It looks like redis://user:password@host:6379/0, or rediss://… for \
             TLS, or redis+unix:///path/to/socket"
                .to_owned(),
        )
    })?;
    // The third protocol tells us at once when a connection ends.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

/// A setting or the library refuses before anything is sent.
pub(super) fn wrong(error: &RedisError) -> Unusable {
    Unusable::Wrong(format!("this Redis cannot be used: {error}"))
}

/// Whether the server itself said so, in place of an answer.
pub(super) fn is_servers_word(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Why a connection does not come about.
pub(super) fn why_not(error: &RedisError) -> Unusable {
    let text = error.to_string();
    let words = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let busy = [ServerErrorKind::BusyLoading, ServerErrorKind::ClusterDown, ServerErrorKind::MasterDown];
    match error.kind() {
        _ if words(&["NOAUTH", "Authentication required"]) => {
            Unusable::Wrong("this Redis wants a password, and the URL has none".to_owned())
        }
        ErrorKind::AuthenticationFailed => Unusable::Wrong("this Redis refuses the user or the password".to_owned()),
        _ if words(&["WRONGPASS"]) => Unusable::Wrong("this Redis refuses the user or the password".to_owned()),
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Unusable::Wrong(format!("the user may not do on this Redis what Sluice needs: {text}"))
        }
        ErrorKind::Server(kind) if busy.contains(&kind) => Unusable::NotYet(format!("it is not ready: {text}")),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::RESP3NotSupported => {
            Unusable::Wrong("what answers there is not Redis, or one before version 6".to_owned())
        }
        ErrorKind::Io if bad_tls(error) => Unusable::Wrong(format!("no TLS connection comes about: {text}")),
        ErrorKind::Io if error.is_timeout() => Unusable::NotYet(SILENT.to_owned()),
        ErrorKind::Io if error.is_connection_refusal() => Unusable::NotYet("nobody listens there".to_owned()),
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Unusable::NotYet(text),
        _ if words(&["max number of clients"]) => Unusable::NotYet(text),
        _ => wrong(error),
    }
}

/// The two sides do not understand each other, or the certificate is not trusted.
fn bad_tls(error: &RedisError) -> bool {
    // The library keeps what went wrong behind a counted pointer.
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Arc<Cause>>());
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::InvalidData)
}

/// What a server says of itself.
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Reads the answer to `INFO`.
    pub(super) fn read(answer: Value) -> Result<Info, Unusable> {
        let answer = answer.extract_error().map_err(|error| why_not(&error))?;
        let text: String = redis::from_redis_value(answer)
            .map_err(|_| Unusable::Wrong("what answers there is not Redis".to_owned()))?;
        let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Info(text.lines().filter_map(pair).collect()))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.get("cluster_enabled") == "1"
    }

    /// Whether the gate's memory is safe there.
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let version = self.get("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < VERSION_MIN) || self.get("master_replid").is_empty() {
            let says = if version.is_empty() { "no version" } else { version };
            return Err(Unusable::Wrong(format!("Sluice needs Redis or Valkey 7 or later, and this one says {says}")));
        }
        if self.get("loading") == "1" {
            return Err(Unusable::NotYet("it is reading its data from disk".to_owned()));
        }
        let policy = self.get("maxmemory_policy");
        if self.get("maxmemory") != "0" && !["noeviction", ""].contains(&policy) {
            return Err(Unusable::Wrong(format!(
                "this Redis throws keys away when its memory is full (maxmemory-policy {policy}), and with them orders on \
                 their way: set maxmemory-policy to noeviction"
            )));
        }
        if self.get("role") != "master" && !self.is_cluster() {
            return Err(Unusable::NotYet("it is a replica, and the gate has to write: name the primary".to_owned()));
        }
        Ok(())
    }
}

/// The same of every primary in the cluster.
pub(super) async fn check_cluster(cluster: &mut ClusterConnection) -> Result<(), Unusable> {
    let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let answer = cluster.route_command(redis::cmd("INFO"), primaries).await.map_err(|error| why_not(&error))?;
    let nodes: HashMap<String, Value> = redis::from_redis_value(answer)
        .map_err(|_| Unusable::NotYet("the cluster's nodes do not all answer".to_owned()))?;
    for (_, info) in nodes {
        Info::read(info)?.check()?;
    }
    Ok(())
}
