//! One connection, to a single server or a cluster.

use futures::{StreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisResult, Value};

use crate::address::{Address, Place};
use crate::error::{Error, refusal};
use crate::{CALL, CONNECT};

/// Maximum commands in one pipeline.
const PIPELINE: usize = 1_000;
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
            Self::Single(mut connection) if commands.len() == 1 => {
                Ok(vec![commands[0].query_async(&mut connection).await])
            }
            Self::Single(mut connection) => {
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

    /// Runs commands one after another over one connection; of a cluster, that to this master.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn run_at(
        self,
        master: SingleNodeRoutingInfo,
        commands: Vec<Cmd>,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let pipeline = pipeline(commands);
        let count = pipeline.len();
        match self {
            Self::Single(mut connection) => pipeline.query_async(&mut connection).await,
            Self::Cluster(mut connection) => {
                let answers = connection.route_pipeline(pipeline, 0, count, master).await?;
                Ok(answers.into_iter().map(Value::extract_error).collect())
            }
        }
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
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
pub async fn connect(address: &Address) -> Result<Connection, Error> {
    let shown = || address.shown().to_owned();
    let nodes = match &address.place {
        Place::Nodes(nodes) => nodes,
        Place::Sentinels(sentinels) => {
            let connected = async {
                let mut client = sentinels.client(address.tls.then_some(&address.certificates))?;
                client.get_async_connection_with_config(&config()).await
            };
            return match tokio::time::timeout(CONNECT, connected).await {
                Ok(connected) => connected.map(Connection::Single).map_err(|error| refusal(address.shown(), &error)),
                Err(_) => Err(Error::Away { shown: shown(), why: late() }),
            };
        }
    };
    let mut last = Error::Away { shown: shown(), why: "it has no host".to_owned() };
    for node in nodes {
        match tokio::time::timeout(CONNECT, connect_to(address, nodes, node)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = refusal(address.shown(), &error),
            Err(_) => last = Error::Away { shown: shown(), why: late() },
        }
    }
    Err(last)
}

fn late() -> String {
    format!("no response within {} s", CONNECT.as_secs())
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(CALL))
}

async fn connect_to(address: &Address, nodes: &[ConnectionInfo], node: &ConnectionInfo) -> RedisResult<Connection> {
    let client = if address.tls {
        Client::build_with_tls(node.clone(), address.certificates.clone())?
    } else {
        Client::open(node.clone())?
    };
    let mut single = client.get_multiplexed_async_connection_with_config(&config()).await?;
    let facts: String = redis::cmd("INFO").arg("cluster").query_async(&mut single).await?;
    if !facts.contains("cluster_enabled:1") {
        return Ok(Connection::Single(single));
    }
    let mut cluster =
        ClusterClientBuilder::new(nodes.to_vec()).connection_timeout(CONNECT).response_timeout(CALL).retries(2);
    if address.tls {
        cluster = cluster.certs(address.certificates.clone());
    }
    Ok(Connection::Cluster(cluster.build()?.get_async_connection().await?))
}
