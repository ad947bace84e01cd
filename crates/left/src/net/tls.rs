//! Identity and encryption: TLS 1.3 with raw Ed25519 public keys (RFC 7250) both ways.
//!
//! A device is its key. There are no certificates, names or authorities: what TLS proves is that
//! the other end holds the private key of the [`DeviceId`] it shows, and nothing else. Who may
//! enter is decided after that, by the handshake's gate.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use left_core::membership::Signature;
use left_core::message::ALPN;
use left_core::version::DeviceId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group, sign};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, PeerMisbehaved, ServerConfig, SignatureScheme, version,
};

/// Label of the TLS exporter (RFC 8446 section 7.5) that proofs are bound to.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-left-1";

/// A secret both ends of one TLS connection know, and nobody else.
pub type Exporter = [u8; 32];

/// An Ed25519 key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system's random numbers failed.
    #[error("cannot make a device key: no random numbers")]
    Random,
    /// Not a PKCS#8 document with an Ed25519 key.
    #[error("the device key is damaged or not an Ed25519 key in PKCS#8 form")]
    Damaged,
}

/// This device's private key.
pub struct DeviceKey {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
    id: DeviceId,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The private part must never reach a log.
        write!(f, "DeviceKey({:?})", self.id)
    }
}

impl DeviceKey {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
        let document = pair.to_pkcs8().map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads what [`to_pkcs8`](Self::to_pkcs8) gave.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| KeyError::Damaged)?;
        let public = pair.public_key().as_ref();
        let id = DeviceId(public.try_into().map_err(|_| KeyError::Damaged)?);
        let signer = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(bytes))
            .map_err(|_| KeyError::Damaged)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki(id))], signer);
        Ok(Self {
            pkcs8: bytes.to_vec(),
            pair,
            id,
            certified: Arc::new(certified),
        })
    }

    /// The key as a PKCS#8 document. Secret: store it readable for its owner only.
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Signs (Ed25519, RFC 8032). What is signed must begin with words of its own: TLS signs with
    /// this key too.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        let mut signature = [0; 64];
        // An Ed25519 signature always has this length.
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }
}

/// Whether `device` signed these bytes.
pub fn is_signed(device: &DeviceId, bytes: &[u8], signature: &Signature) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, &device.0);
    key.verify(bytes, signature).is_ok()
}

/// The dialed device showed another key than the expected one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wrong device: expected {}, found {found}", one_of(expected))]
pub struct WrongKey {
    /// Who was meant: one of these.
    pub expected: Vec<DeviceId>,
    /// Who answered.
    pub found: DeviceId,
}

fn one_of(expected: &[DeviceId]) -> String {
    let ids: Vec<String> = expected.iter().map(ToString::to_string).collect();
    ids.join(" or ")
}

/// What one finished TLS handshake proved.
#[derive(Clone, Copy)]
pub struct Proven {
    /// The other end's key.
    pub peer: DeviceId,
    /// Binds proofs of tickets and codes to this connection.
    pub exporter: Exporter,
}

/// Reads peer and exporter off a finished handshake. `export` calls
/// `export_keying_material` of the connection (client and server types share no trait for it).
pub(super) fn proven(
    state: &CommonState,
    export: impl FnOnce(Exporter) -> Result<Exporter, Error>,
) -> Result<Proven, Error> {
    // rustls lets a client without ALPN pass; we do not.
    if state.alpn_protocol() != Some(ALPN) {
        return Err(Error::NoApplicationProtocol);
    }
    let shown = state.peer_certificates().and_then(<[_]>::first);
    let peer = parse_spki(shown.ok_or(Error::NoCertificatesPresented)?)?;
    let exporter = export([0; 32])?;
    Ok(Proven { peer, exporter })
}

/// The name that TLS wants and nobody looks at; it is not sent.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from("left.invalid").expect("a valid DNS name")
}

/// For listening: any device may connect, each must prove its key.
pub(super) fn server_config(key: &DeviceKey) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(Verifier::new(None, &provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            key.certified.clone(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would skip the proof of the key: never.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // Data lanes leave rustls once they are open: see `records`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// For dialing: one of the devices `pins` must answer; with `None` any key is taken, and the
/// caller proves by other means who it is.
pub(super) fn client_config(
    key: &DeviceKey,
    pins: Option<Vec<DeviceId>>,
) -> Result<Arc<ClientConfig>, Error> {
    client_config_with(key, pins, provider())
}

fn client_config_with(
    key: &DeviceKey,
    pins: Option<Vec<DeviceId>>,
    provider: CryptoProvider,
) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(provider);
    let verifier = Arc::new(Verifier::new(pins, &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            key.certified.clone(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The dialer's order of cipher suites counts: with AES in hardware AES-128-GCM costs least.
/// The key exchange is hybrid with ML-KEM, so what is recorded today stays closed to a later
/// quantum computer; X25519 alone remains for peers without it.
fn provider() -> CryptoProvider {
    let mut suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    if !hardware_aes() {
        suites.rotate_right(1);
    }
    CryptoProvider {
        cipher_suites: suites,
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..default_provider()
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn hardware_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn hardware_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn hardware_aes() -> bool {
    false
}

/// DER of SubjectPublicKeyInfo for Ed25519 (RFC 8410) up to the key itself. There is exactly one
/// encoding, so parsing is comparing.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

fn spki(id: DeviceId) -> Vec<u8> {
    [&SPKI_PREFIX[..], &id.0[..]].concat()
}

fn parse_spki(der: &[u8]) -> Result<DeviceId, Error> {
    der.strip_prefix(&SPKI_PREFIX[..])
        .and_then(|key| key.try_into().ok())
        .map(DeviceId)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

#[derive(Debug)]
struct Verifier {
    pins: Option<Vec<DeviceId>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(pins: Option<Vec<DeviceId>>, provider: &CryptoProvider) -> Self {
        Self {
            pins,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn check(&self, key: &[u8], more: &[CertificateDer<'_>]) -> Result<(), Error> {
        let found = parse_spki(key)?;
        if !more.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        match &self.pins {
            Some(pins) if !pins.contains(&found) => {
                let expected = pins.clone();
                let wrong = OtherError(Arc::new(WrongKey { expected, found }));
                Err(Error::InvalidCertificate(CertificateError::Other(wrong)))
            }
            _ => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        key: &[u8],
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let spki = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms)
    }
}

/// TLS 1.2 is never offered, so this is never called; if it were, the answer is no.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Digs the wrong key out of a failed TLS handshake.
pub(super) fn wrong_key(error: &std::io::Error) -> Option<WrongKey> {
    let tls = error.get_ref()?.downcast_ref::<Error>()?;
    match tls {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<WrongKey>().cloned()
        }
        _ => None,
    }
}

/// A dialer with only the `n`th cipher suite.
#[cfg(test)]
pub(super) fn one_suite(key: &DeviceKey, n: usize) -> Option<Arc<ClientConfig>> {
    let mut provider = provider();
    provider.cipher_suites = vec![*provider.cipher_suites.get(n)?];
    client_config_with(key, None, provider).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_survives_its_document_and_hides_its_secret() {
        let key = DeviceKey::generate().unwrap();
        let again = DeviceKey::from_pkcs8(key.to_pkcs8()).unwrap();
        assert_eq!(key.id(), again.id());
        assert_ne!(key.id(), DeviceKey::generate().unwrap().id());
        assert_eq!(
            format!("{key:?}"),
            format!("DeviceKey({})", key.id().short())
        );
        assert_eq!(
            DeviceKey::from_pkcs8(b"junk").unwrap_err(),
            KeyError::Damaged
        );
    }

    #[test]
    fn spki_is_what_the_signer_itself_says() {
        let key = DeviceKey::generate().unwrap();
        let theirs = key.certified.key.public_key().unwrap();
        assert_eq!(theirs.as_ref(), spki(key.id()));
        assert_eq!(parse_spki(&theirs).unwrap(), key.id());
    }

    #[test]
    fn only_the_one_encoding_is_a_key() {
        let good = spki(DeviceId([7; 32]));
        assert!(parse_spki(&good).is_ok());
        assert!(parse_spki(&good[..43]).is_err());
        assert!(parse_spki(&[&good[..], &[0]].concat()).is_err());
        assert!(parse_spki(&[]).is_err());
        for at in 0..SPKI_PREFIX.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse_spki(&bad).is_err(), "byte {at}");
        }
    }
}
