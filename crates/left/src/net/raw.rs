//! Encrypted connections without any Hello, for tests that send what no lane does.

use left_core::version::DeviceId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsStream;

use super::Net;
use super::dial::DialError;
use super::records::RecordStream;
use super::tls::Exporter;

/// What is left of a connection when nobody keeps to the protocol.
pub trait RawStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl RawStream for TlsStream<RecordStream> {}

impl Net {
    /// Dials `peer`; not a byte was sent inside of TLS.
    #[doc(hidden)]
    pub async fn dial_raw(
        &self,
        peer: DeviceId,
        address: &str,
    ) -> Result<(Box<dyn RawStream>, Exporter), DialError> {
        let connected = self.connect(Some(vec![peer]), &[address.into()]).await?;
        Ok((Box::new(connected.stream), connected.proven.exporter))
    }
}
