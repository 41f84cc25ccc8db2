//! The master of one slot. Whoever keeps all its keys there needs no connection to the other nodes of a cluster, and does not mind if
//! one of them hangs.

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue, Value};

use crate::address::Address;
use crate::connection::{first, in_time, open};
use crate::error::Error;

/// Connects to the only server, to the master that Sentinel names, or to the master of this slot in a cluster.
pub(crate) async fn connect(address: &Address, slot: u16) -> Result<MultiplexedConnection, Error> {
    let mut node = first(address).await?;
    let Some(info) = node.info.filter(|_| node.is_cluster) else { return Ok(node.connection) };
    let slots: Value = in_time(address, redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut node.connection)).await?;
    match find(slots, slot) {
        Some((host, port)) => open(address, moved(info, host, port)).await,
        None => Err(Error::Away { shown: address.shown().to_owned(), why: format!("no node has slot {slot}") }),
    }
}

/// Host and port of a slot's master, as `CLUSTER SLOTS` lists it. Without a host it is that of the node which was asked.
fn find(slots: Value, slot: u16) -> Option<(Option<String>, u16)> {
    let rows: Vec<Vec<Value>> = redis::from_redis_value(slots).ok()?;
    rows.into_iter().find_map(|row| {
        let mut row = row.into_iter();
        let (first, last): (u16, u16) = (read(row.next()?)?, read(row.next()?)?);
        let mut master = read::<Vec<Value>>(row.next()?)?.into_iter();
        let (host, port) = (read::<Option<String>>(master.next()?)?, read(master.next()?)?);
        (first..=last).contains(&slot).then_some((host.filter(|host| !host.is_empty() && host != "?"), port))
    })
}

fn read<T: FromRedisValue>(value: Value) -> Option<T> {
    redis::from_redis_value(value).ok()
}

/// The way to another node, with the same login.
fn moved(info: ConnectionInfo, other: Option<String>, port: u16) -> ConnectionInfo {
    let to = match info.addr().clone() {
        ConnectionAddr::Tcp(host, _) => ConnectionAddr::Tcp(other.unwrap_or(host), port),
        ConnectionAddr::TcpTls { host, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: other.unwrap_or(host), port, insecure, tls_params }
        }
        unix => unix,
    };
    info.set_addr(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: i64, last: i64, host: Value, port: i64) -> Value {
        let replica = Value::Array(vec![Value::BulkString(b"replica".to_vec()), Value::Int(1)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(vec![host, Value::Int(port)]), replica])
    }

    #[test]
    fn the_master_of_a_slot_is_found() {
        let host = |host: &str| Value::BulkString(host.as_bytes().to_vec());
        let rows = || Value::Array(vec![row(0, 9, host("a"), 1), row(10, 20, Value::Nil, 2), row(21, 30, host(""), 3)]);
        assert_eq!(find(rows(), 9), Some((Some("a".to_owned()), 1)));
        assert_eq!(find(rows(), 10), Some((None, 2)));
        assert_eq!(find(rows(), 30), Some((None, 3)));
        assert_eq!(find(rows(), 31), None);
        assert_eq!(find(Value::Array(vec![Value::Int(1), Value::Nil]), 0), None);
    }
}
