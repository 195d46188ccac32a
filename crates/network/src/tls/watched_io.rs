//! A byte stream that other tasks can end, that reports its end, and that ends when the peer floods it.

use super::{
    frames::{Flood, Frames},
    strangers::Share,
};
use crate::ends::Ends;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// The stream of one connection.
pub(crate) struct WatchedIo<T, I> {
    inner: T,
    hang_up: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Reports the end when HTTP/2 drops the stream.
    _closed: DropGuard,
    /// Counts the peer's frames.
    frames: Frames,
    /// The connection's share of the strangers' rate; none for a dialled peer.
    share: Option<Share>,
    /// See [`Ends::flooded`].
    flooded: CancellationToken,
    /// Information about the connection that the server attaches to requests.
    info: I,
}

impl<T, I> WatchedIo<T, I> {
    /// Wraps `inner` with its `ends` and the counter of the peer's frames.
    pub(crate) fn new(inner: T, ends: &Ends, frames: Frames, info: I) -> Self {
        let hang_up = Box::pin(ends.hang_up.clone().cancelled_owned());
        let (closed, flooded) = (ends.closed.clone().drop_guard(), ends.flooded.clone());
        Self { inner, hang_up, _closed: closed, frames, share: None, flooded, info }
    }

    /// Limits reading to the share's rate.
    pub(crate) fn with_share(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    fn poll_hung_up(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.hang_up.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "hung up")),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin, I: Unpin> AsyncRead for WatchedIo<T, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_hung_up(context)?;
        if let Some(share) = &mut self.share {
            ready!(share.poll_turn(context));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        match self.frames.read(&buffer.filled()[before..]) {
            Ok(frames) => {
                if let Some(share) = &mut self.share {
                    share.read(frames);
                }
                Poll::Ready(Ok(()))
            }
            Err(flood) => {
                tracing::debug!(%flood, "hung up");
                if let Flood::Hostile(_) = flood {
                    self.flooded.cancel();
                }
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, flood)))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin, I: Unpin> AsyncWrite for WatchedIo<T, I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_hung_up(context)?;
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = wrote {
            self.frames.wrote(&bytes[..count]);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_hung_up(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_hung_up(context)?;
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        if let Poll::Ready(Ok(mut left)) = wrote {
            for buffer in buffers {
                let count = left.min(buffer.len());
                self.frames.wrote(&buffer[..count]);
                left -= count;
            }
        }
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<T, I: Clone + Send + Sync + 'static> Connected for WatchedIo<T, I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}
