//! A door before a service: connections go through it, or do not, as the nemesis wants.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::failure::Failure;

/// How the door stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Everything passes.
    Open,
    /// Every piece is held up for so long, in either direction.
    Slow(Duration),
    /// Connections stand, and can be made, and nothing arrives until the door opens: a partition.
    Silent,
    /// No connection can be made; those that stand are cut.
    Shut,
}

#[derive(Clone, Copy)]
struct Order {
    passage: Passage,
    /// Rises with every cut.
    cuts: u64,
}

/// The nemesis's hand on the door. Dropping it takes the door away.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    order: watch::Sender<Order>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Stands before `upstream`, on `port`.
    pub(crate) async fn open(port: u16, upstream: u16) -> Result<Arc<Self>, Failure> {
        let (order, orders) = watch::channel(Order {
            passage: Passage::Open,
            cuts: 0,
        });
        let listener = bind(port).await?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, port, upstream, orders));
        Ok(Arc::new(Self {
            port,
            order,
            _serving: serving,
        }))
    }

    pub(crate) fn set(&self, passage: Passage) {
        self.order.send_modify(|order| {
            order.passage = passage;
            if passage == Passage::Shut {
                order.cuts += 1;
            }
        });
    }

    /// Ends every connection that stands; new ones may be made.
    pub(crate) fn cut(&self) {
        self.order.send_modify(|order| order.cuts += 1);
    }
}

async fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

async fn serve(
    listener: TcpListener,
    port: u16,
    upstream: u16,
    mut orders: watch::Receiver<Order>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    // Rebinding may fail while the last connections are torn down.
    let mut retry = interval(Duration::from_millis(100));
    loop {
        let shut = orders.borrow_and_update().passage == Passage::Shut;
        if shut {
            listener = None;
        } else if listener.is_none() {
            listener = bind(port).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, upstream, orders.clone()));
                }
            }
            changed = orders.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            _ = retry.tick() => {}
        }
    }
}

async fn carry(client: TcpStream, upstream: u16, mut orders: watch::Receiver<Order>) {
    let cuts = orders.borrow_and_update().cuts;
    let mut knife = orders.clone();
    let carried = async {
        let service = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
        client.set_nodelay(true)?;
        service.set_nodelay(true)?;
        let (client_in, client_out) = client.into_split();
        let (service_in, service_out) = service.into_split();
        // As soon as one direction ends the connection does: both services and clients here close both.
        tokio::select! {
            ended = pump(client_in, service_out, orders.clone()) => ended,
            ended = pump(service_in, client_out, orders.clone()) => ended,
        }
    };
    tokio::select! {
        _ended = carried => {}
        _cut = knife.wait_for(|order| order.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Order>,
) -> std::io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut piece).await?;
        let passage = orders.borrow_and_update().passage;
        match passage {
            Passage::Open => {}
            Passage::Slow(time) => sleep(time).await,
            Passage::Silent | Passage::Shut => {
                let open =
                    |order: &Order| !matches!(order.passage, Passage::Silent | Passage::Shut);
                if orders.wait_for(open).await.is_err() {
                    return Ok(());
                }
            }
        }
        if length == 0 {
            return Ok(());
        }
        to.write_all(&piece[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(300);

    /// An upstream that sends back what it gets, and a door before it.
    async fn door() -> (Arc<Proxy>, JoinSet<()>) {
        let upstream = bind(0).await.expect("a port is free");
        let port = upstream.local_addr().expect("it is bound").port();
        let mut echoes = JoinSet::new();
        echoes.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = upstream.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        let own = bind(0).await.expect("a port is free");
        let free = own.local_addr().expect("it is bound").port();
        drop(own);
        (Proxy::open(free, port).await.expect("it opens"), echoes)
    }

    async fn connect(door: &Proxy) -> std::io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, door.port)).await
    }

    async fn echo(stream: &mut TcpStream) -> Option<[u8; 4]> {
        stream.write_all(b"ping").await.ok()?;
        let mut answer = [0; 4];
        timeout(MOMENT, stream.read_exact(&mut answer))
            .await
            .ok()?
            .ok()?;
        Some(answer)
    }

    #[tokio::test]
    async fn it_lets_through_holds_back_cuts_and_refuses() {
        let (door, _echoes) = door().await;
        let mut stream = connect(&door).await.expect("open");
        assert_eq!(echo(&mut stream).await, Some(*b"ping"));

        door.set(Passage::Silent);
        assert_eq!(echo(&mut stream).await, None, "silent");
        door.set(Passage::Open);
        let mut late = [0; 4];
        timeout(MOMENT * 10, stream.read_exact(&mut late))
            .await
            .expect("what was held back arrives")
            .expect("whole");

        door.cut();
        assert_eq!(echo(&mut stream).await, None, "cut");
        let mut stream = connect(&door).await.expect("a cut is no refusal");
        assert_eq!(echo(&mut stream).await, Some(*b"ping"));

        door.set(Passage::Shut);
        assert_eq!(echo(&mut stream).await, None, "shut");
        tokio::time::sleep(MOMENT).await;
        assert!(connect(&door).await.is_err(), "it refuses");
        door.set(Passage::Open);
        tokio::time::sleep(MOMENT).await;
        let mut stream = connect(&door).await.expect("open again");
        assert_eq!(echo(&mut stream).await, Some(*b"ping"));
    }
}
