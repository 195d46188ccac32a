//! An archive in object storage: listing, reading and writing.

use crate::{
    error::ArchiveError,
    segment::{MAX_SEGMENT_BYTES, Segment, SegmentError},
    snapshots::{SnapshotName, SnapshotPart},
    storage::SegmentStorage,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, GetResult, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode,
    PutOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    http::HttpBuilder,
    local::LocalFileSystem,
    path::Path,
};
use soma_types::{ChainId, Epoch, SegmentName};
use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};
use url::Url;

/// Maximum number of objects of one epoch, foreign ones included: several writers of the largest epochs.
const MAX_OBJECTS: usize = 1_000_000;

/// Snapshots that a listing gives: the latest ones.
const MAX_SNAPSHOTS: usize = 16;

/// Attempts after a failed one, and the time after which none begins. A running node then backs off by itself.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(10),
        base: 2.0,
    },
    max_retries: 4,
    retry_timeout: Duration::from_secs(20),
};

/// Time for one request: a whole segment on a slow line.
const REQUEST_TIMEOUT: &str = "120 seconds";

/// Time for a connection.
const CONNECT_TIMEOUT: &str = "10 seconds";

/// An archive: a directory, or a path in a bucket. It may hold several chains.
#[derive(Clone, Debug)]
pub struct Archive {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    place: Arc<str>,
}

impl Archive {
    /// Opens the archive at a directory, or at a URL: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`,
    /// `https://HOST/PATH`, `file:///PATH`. Nothing is read yet.
    ///
    /// Credentials and endpoints come from the variables that users of these clients know: `AWS_*`, `GOOGLE_*`,
    /// `AZURE_*`. A missing directory is created.
    ///
    /// # Errors
    /// Fails if the place is of no known kind, or its client cannot be made.
    pub fn open(place: &str) -> Result<Self, ArchiveError> {
        let wrong = |place: &str, reason: String| ArchiveError::Place { place: place.into(), reason };
        let Ok(url) = Url::parse(place) else { return Self::in_directory(place, std::path::Path::new(place)) };
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| wrong(place, "it names no directory".into()))?;
            return Self::in_directory(place, &path);
        }
        // A query may be a signature.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            let reason = "credentials come from the environment, not from the URL";
            return Err(wrong(url.host_str().unwrap_or(url.scheme()), reason.into()));
        }
        use_ring();
        let (scheme, root) = ObjectStoreScheme::parse(&url).map_err(|error| wrong(place, error.to_string()))?;
        let objects = client(scheme, &url).map_err(|error| wrong(place, error.to_string()))?;
        Ok(Self { objects, root, place: place.into() })
    }

    fn in_directory(place: &str, path: &std::path::Path) -> Result<Self, ArchiveError> {
        let wrong = |reason: String| ArchiveError::Place { place: place.into(), reason };
        fs::create_dir_all(path).map_err(|error| wrong(error.to_string()))?;
        let objects = LocalFileSystem::new_with_prefix(path).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { objects: Arc::new(objects.with_fsync(true)), root: Path::default(), place: place.into() })
    }

    fn failed(&self, doing: impl Into<String>, source: Error) -> ArchiveError {
        const CREDENTIALS: &str = "check the credentials in the environment, and their rights";
        // A refused listing has no error of its own.
        let is_refused = |source: &Error| {
            ["401 Unauthorized", "403 Forbidden"].iter().any(|status| source.to_string().contains(status))
        };
        let advice = match &source {
            Error::NotFound { .. } => "check the bucket and the path",
            Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => CREDENTIALS,
            Error::Generic { .. } if is_refused(&source) => CREDENTIALS,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                "this kind of storage can be read, and not written"
            }
            _ => "check the storage and the network, then try again: what is there already stays",
        };
        ArchiveError::Storage { place: self.place.to_string(), doing: doing.into(), source: Box::new(source), advice }
    }

    fn path(&self, below: &str) -> Path {
        self.root.parts().chain(Path::from(below).parts()).collect()
    }

    /// The chains that the archive holds.
    ///
    /// # Errors
    /// Fails if the storage cannot be listed.
    pub async fn chains(&self) -> Result<Vec<ChainId>, ArchiveError> {
        let found = self.folders(&self.root, "list its chains").await?;
        let mut chains: Vec<ChainId> = found.iter().filter_map(|name| name.parse().ok()).collect();
        chains.sort_unstable();
        Ok(chains)
    }

    /// The epochs of a chain that have segments, in order.
    ///
    /// # Errors
    /// Fails if the storage cannot be listed.
    pub async fn epochs(&self, chain: ChainId) -> Result<Vec<Epoch>, ArchiveError> {
        let found = self.folders(&self.path(&chain.to_string()), "list the epochs of the chain").await?;
        let mut epochs: Vec<Epoch> = found.iter().filter_map(|name| SegmentName::parse_epoch(name)).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    async fn folders(&self, path: &Path, doing: &str) -> Result<Vec<String>, ArchiveError> {
        let listed = self.objects.list_with_delimiter(Some(path)).await.map_err(|error| self.failed(doing, error))?;
        Ok(listed.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect())
    }
}

#[async_trait]
impl SegmentStorage for Archive {
    fn place(&self) -> &str {
        &self.place
    }

    async fn segments(&self, chain: ChainId, epoch: Epoch) -> Result<Vec<(SegmentName, u64)>, ArchiveError> {
        let below = format!("{chain}/{}", SegmentName::epoch_text(epoch));
        let mut listing = self.objects.list(Some(&self.path(&below)));
        let (mut segments, mut objects) = (Vec::new(), 0);
        while let Some(object) = listing.next().await {
            let object = object.map_err(|error| self.failed(format!("list {below}"), error))?;
            let name = object.location.filename().and_then(|range| format!("{below}/{range}").parse().ok());
            segments.extend(name.map(|name| (name, object.size)));
            objects += 1;
            if objects > MAX_OBJECTS {
                return Err(ArchiveError::TooMany { place: self.place.to_string(), epoch, limit: MAX_OBJECTS });
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    async fn put(&self, segment: &Segment) -> Result<bool, ArchiveError> {
        let name = segment.name();
        let broken = |source| ArchiveError::Segment { place: self.place.to_string(), name, source };
        let bytes = segment.encode().map_err(broken)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.path(&name.to_string()), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(format!("write {name}"), error)),
        }
    }

    async fn get(&self, name: &SegmentName) -> Result<Segment, ArchiveError> {
        let broken = |source| ArchiveError::Segment { place: self.place.to_string(), name: *name, source };
        let failed = |error| self.failed(format!("read {name}"), error);
        let object = self.objects.get(&self.path(&name.to_string())).await.map_err(failed)?;
        let bytes = read(object, MAX_SEGMENT_BYTES).await.map_err(failed)?;
        let bytes = bytes.ok_or_else(|| broken(SegmentError::TooLarge))?;
        let segment = Segment::decode(bytes).map_err(broken)?;
        if segment.name() != *name {
            let found = Box::new(segment.name());
            return Err(ArchiveError::Foreign { place: self.place.to_string(), name: *name, found });
        }
        Ok(segment)
    }

    async fn snapshots(&self, chain: ChainId) -> Result<Vec<SnapshotName>, ArchiveError> {
        let below = format!("{chain}/snapshots");
        let mut listing = self.objects.list(Some(&self.path(&below)));
        let mut latest = BTreeSet::new();
        while let Some(object) = listing.next().await {
            let object = object.map_err(|error| self.failed(format!("list {below}"), error))?;
            latest.extend(object.location.filename().and_then(|name| name.parse::<SnapshotName>().ok()));
            if latest.len() > MAX_SNAPSHOTS {
                latest.pop_first();
            }
        }
        Ok(latest.into_iter().rev().collect())
    }

    async fn put_part(&self, chain: ChainId, part: SnapshotPart, bytes: Bytes) -> Result<bool, ArchiveError> {
        let path = self.path(&format!("{chain}/{part}"));
        let failed = |error| self.failed(format!("write {part}"), error);
        // Two snapshots may share most chunks: a chunk that is there is not sent again.
        match self.objects.head(&path).await {
            Ok(_) => return Ok(false),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&path, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn get_part(&self, chain: ChainId, part: SnapshotPart) -> Result<Option<Bytes>, ArchiveError> {
        let failed = |error| self.failed(format!("read {part}"), error);
        let object = match self.objects.get(&self.path(&format!("{chain}/{part}"))).await {
            Ok(object) => object,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match read(object, part.max_bytes()).await.map_err(failed)? {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(ArchiveError::LongPart { place: self.place.to_string(), part }),
        }
    }
}

/// All of an object. `None` if it has more bytes.
async fn read(object: GetResult, most: usize) -> object_store::Result<Option<Bytes>> {
    let mut bytes = BytesMut::new();
    let mut pieces = object.into_stream();
    while let Some(piece) = pieces.next().await {
        let piece: Bytes = piece?;
        if bytes.len() + piece.len() > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes.freeze()))
}

/// The client of a kind of storage, with the settings of the environment. Variables may set other times.
fn client(scheme: ObjectStoreScheme, url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    use ClientConfigKey::{ConnectTimeout, Timeout};
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_config(AmazonS3ConfigKey::Client(Timeout), REQUEST_TIMEOUT)
                .with_config(AmazonS3ConfigKey::Client(ConnectTimeout), CONNECT_TIMEOUT);
            Arc::new(builder.with_retry(RETRIES).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_config(GoogleConfigKey::Client(Timeout), REQUEST_TIMEOUT)
                .with_config(GoogleConfigKey::Client(ConnectTimeout), CONNECT_TIMEOUT);
            Arc::new(builder.with_retry(RETRIES).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_config(AzureConfigKey::Client(Timeout), REQUEST_TIMEOUT)
                .with_config(AzureConfigKey::Client(ConnectTimeout), CONNECT_TIMEOUT);
            Arc::new(builder.with_retry(RETRIES).build()?)
        }
        ObjectStoreScheme::Http => {
            let builder = HttpBuilder::new()
                .with_url(&url[..url::Position::BeforePath])
                .with_config(Timeout, REQUEST_TIMEOUT)
                .with_config(ConnectTimeout, CONNECT_TIMEOUT)
                .with_config(ClientConfigKey::AllowHttp, (url.scheme() == "http").to_string());
            Arc::new(builder.with_retry(RETRIES).build()?)
        }
        other => {
            let source = format!("{other:?} is no storage that lasts").into();
            return Err(Error::Generic { store: "archive", source });
        }
    })
}

/// Makes ring the TLS cryptography of the process, unless the process has chosen already.
fn use_ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have chosen meanwhile, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
