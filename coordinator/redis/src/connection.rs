//! One connection, to a single server or a cluster.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisResult, Value};

use crate::address::{Address, Place};
use crate::error::{Error, refusal};
use crate::{CALL, CONNECT};

/// Maximum commands in one pipeline.
const PIPELINE: usize = 1_000;
/// Time limit for one node of a cluster, which may hang while the others work.
const NODE: Duration = Duration::from_secs(1);
/// Maximum concurrent commands to a cluster, where a pipeline cannot span nodes.
const FAN_OUT: usize = 128;

/// A connection. Cheap to clone; clones share it.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Single",
            Self::Cluster(_) => "Cluster",
        })
    }
}

impl Connection {
    /// Runs independent commands; returns their answers in the same order.
    ///
    /// # Errors
    /// The outer error is the connection's, an inner one is the command's own.
    pub async fn run(self, commands: Vec<Cmd>) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::Single(mut connection) => {
                if let [command] = commands.as_slice() {
                    return Ok(vec![command.query_async(&mut connection).await]);
                }
                let mut answers = Vec::with_capacity(commands.len());
                let mut commands = commands.into_iter().peekable();
                while commands.peek().is_some() {
                    let pipeline = pipeline(commands.by_ref().take(PIPELINE));
                    let found: Vec<RedisResult<Value>> = pipeline.query_async(&mut connection).await?;
                    answers.extend(found);
                }
                Ok(answers)
            }
            Self::Cluster(connection) => {
                let calls = stream::iter(commands).map(|command| {
                    let mut connection = connection.clone();
                    async move { command.query_async(&mut connection).await }
                });
                Ok(calls.buffered(FAN_OUT).collect().await)
            }
        }
    }
}

/// Commands of which one that fails does not keep the others from running.
pub(crate) fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.ignore_errors();
    pipeline
}

/// Connects to the first node that responds, to the whole cluster if it belongs to one, or to the master that Sentinel names.
///
/// # Errors
/// [`Error::Away`] if waiting may help, otherwise what is wrong.
pub fn connect(address: &Address) -> BoxFuture<'_, Result<Connection, Error>> {
    // The future is a large one, and others are made of it.
    Box::pin(connect_all(address))
}

async fn connect_all(address: &Address) -> Result<Connection, Error> {
    let node = first(address).await?;
    if !node.is_cluster {
        return Ok(Connection::Single(node.connection));
    }
    let Place::Nodes(nodes) = &address.place else { return Ok(Connection::Single(node.connection)) };
    let mut cluster =
        ClusterClientBuilder::new(nodes.clone()).connection_timeout(NODE).response_timeout(CALL).retries(2);
    if address.tls {
        cluster = cluster.certs(address.certificates.clone());
    }
    let connected = async { cluster.build()?.get_async_connection().await };
    Ok(Connection::Cluster(in_time(address, connected).await?))
}

/// A node that responds.
pub(crate) struct Node {
    pub(crate) connection: MultiplexedConnection,
    /// How it was reached; nothing for a master that Sentinel named.
    pub(crate) info: Option<ConnectionInfo>,
    pub(crate) is_cluster: bool,
}

/// Connects to the first node that responds, or to the master that Sentinel names.
pub(crate) async fn first(address: &Address) -> Result<Node, Error> {
    let nodes = match &address.place {
        Place::Nodes(nodes) => nodes,
        Place::Sentinels(sentinels) => {
            let connected = async {
                let mut client = sentinels.client(address.tls.then_some(&address.certificates))?;
                client.get_async_connection_with_config(&config()).await
            };
            let connection = in_time(address, connected).await?;
            return Ok(Node { connection, info: None, is_cluster: false });
        }
    };
    // At the same time: one that hangs must not keep the others from being asked.
    let attempt = |node: ConnectionInfo| async move {
        let mut connection = open(address, node.clone()).await?;
        let asked = async {
            let facts: String = redis::cmd("INFO").arg("cluster").query_async(&mut connection).await?;
            Ok(facts.contains("cluster_enabled:1"))
        };
        let is_cluster = in_time(address, asked).await?;
        Ok(Node { connection, info: Some(node), is_cluster })
    };
    let mut attempts: FuturesUnordered<_> = nodes.iter().cloned().map(attempt).collect();
    let mut why_not = Error::Away { shown: address.shown().to_owned(), why: "it has no host".to_owned() };
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(node) => return Ok(node),
            Err(error) => why_not = error,
        }
    }
    Err(why_not)
}

/// Connects to one node.
pub(crate) async fn open(address: &Address, node: ConnectionInfo) -> Result<MultiplexedConnection, Error> {
    let connected = async {
        let client =
            if address.tls { Client::build_with_tls(node, address.certificates.clone())? } else { Client::open(node)? };
        client.get_multiplexed_async_connection_with_config(&config()).await
    };
    in_time(address, connected).await
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(CALL))
}

/// What is part of connecting, within the limit for that.
pub(crate) async fn in_time<T>(address: &Address, part: impl Future<Output = RedisResult<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CONNECT, part).await {
        Ok(done) => done.map_err(|error| refusal(address.shown(), &error)),
        Err(_) => {
            let why = format!("no response within {} s", CONNECT.as_secs());
            Err(Error::Away { shown: address.shown().to_owned(), why })
        }
    }
}
