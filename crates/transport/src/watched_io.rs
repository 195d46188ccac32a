//! A byte stream that can be ended from outside, and whose end is noticed; one that is flooded ends by itself.

use crate::frames::Frames;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Wraps the stream of one connection.
pub(crate) struct WatchedIo<T, I> {
    inner: T,
    hang_up: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Tells of the end when HTTP/2 drops the stream.
    _closed: DropGuard,
    /// Counts what a client sends.
    frames: Option<Frames>,
    /// What a server tells requests about the connection.
    info: I,
}

impl<T, I> WatchedIo<T, I> {
    /// Cancelling `hang_up` ends the stream; its end cancels `closed`.
    pub(crate) fn new(inner: T, hang_up: CancellationToken, closed: CancellationToken, info: I) -> Self {
        Self { inner, hang_up: Box::pin(hang_up.cancelled_owned()), _closed: closed.drop_guard(), frames: None, info }
    }

    /// The same, ended when a client at the other end floods it with HTTP/2 frames.
    pub(crate) fn counted(self) -> Self {
        Self { frames: Some(Frames::new()), ..self }
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
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let (Poll::Ready(Ok(())), Some(frames)) = (&read, &mut self.frames)
            && let Err(flood) = frames.read(&buffer.filled()[before..])
        {
            tracing::debug!(%flood, "hung up");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, flood)));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin, I: Unpin> AsyncWrite for WatchedIo<T, I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_hung_up(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
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
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
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
