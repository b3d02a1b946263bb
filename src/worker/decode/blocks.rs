//! A demuxer for recordings whose samples lie in blocks of one length: PCM, G.711, GSM 06.10, whatever header they have.
//! Trusts: a [`Layout`] that our own header readers made.
//! Touches: the recording.
//! Next: `Decoder` pulls its packets as it does those of symphonia's demuxers.

use symphonia::core::audio::{Channels, layouts};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters};
use symphonia::core::common::FourCc;
use symphonia::core::errors::{Result as SymphoniaResult, SeekErrorKind, seek_error};
use symphonia::core::formats::{FormatId, FormatInfo, FormatReader, MediaInfo, SeekMode, SeekTo, SeekedTo, Track};
use symphonia::core::io::{MediaSource as _, MediaSourceStream, ReadBytes as _};
use symphonia::core::meta::{Metadata, MetadataLog};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

/// Samples a channel in one packet, about; a block is never divided.
const PACKET_FRAMES: u64 = 1024;

/// What lies in the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) codec: AudioCodecId,
    pub(super) sample_rate: u32,
    pub(super) channels: u16,
    /// Bytes of one block.
    pub(super) block_len: u32,
    /// Samples a channel in one block.
    pub(super) block_frames: u32,
    /// Blocks are decoded one by one, so that a damaged one spoils no other.
    pub(super) single: bool,
}

impl Layout {
    /// Samples a channel in so many bytes; what is no whole block does not count.
    pub(super) fn frames(&self, len: u64) -> u64 {
        (len / u64::from(self.block_len.max(1))).saturating_mul(u64::from(self.block_frames))
    }
}

/// The demuxer.
pub(super) struct Blocks {
    stream: MediaSourceStream<'static>,
    media: MediaInfo,
    log: MetadataLog,
    track: [Track; 1],
    layout: Layout,
    blocks_left: u64,
    passed: u64,
}

impl Blocks {
    /// `stream` begins with the first block and ends with the recording.
    pub(super) fn new(stream: MediaSourceStream<'static>, layout: Layout) -> Self {
        let len = stream.byte_len().unwrap_or(0);
        let blocks_left = len / u64::from(layout.block_len.max(1));
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(layout.codec).with_sample_rate(layout.sample_rate).with_channels(channels(layout.channels));
        let mut track = Track::new(0);
        track.with_codec_params(CodecParameters::Audio(parameters)).with_num_frames(layout.frames(len));
        Self { stream, media: MediaInfo::default(), log: MetadataLog::default(), track: [track], layout, blocks_left, passed: 0 }
    }
}

fn channels(count: u16) -> Channels {
    match count {
        1 => layouts::CHANNEL_LAYOUT_MONO,
        2 => layouts::CHANNEL_LAYOUT_STEREO,
        other => Channels::Discrete(other),
    }
}

impl FormatReader for Blocks {
    fn format_info(&self) -> &FormatInfo {
        const { &FormatInfo { format: FormatId::new(FourCc::new(*b"blck")), short_name: "blocks", long_name: "blocks of one length" } }
    }

    fn media_info(&self) -> &MediaInfo {
        &self.media
    }

    fn metadata(&mut self) -> Metadata<'_> {
        self.log.metadata()
    }

    fn seek(&mut self, _: SeekMode, _: SeekTo) -> SymphoniaResult<SeekedTo> {
        seek_error(SeekErrorKind::Unseekable)
    }

    fn tracks(&self) -> &[Track] {
        &self.track
    }

    fn next_packet(&mut self) -> SymphoniaResult<Option<Packet>> {
        if self.blocks_left == 0 {
            return Ok(None);
        }
        let Layout { block_len, block_frames, single, .. } = self.layout;
        let wanted = if single { 1 } else { (PACKET_FRAMES / u64::from(block_frames.max(1))).max(1) };
        let blocks = wanted.min(self.blocks_left);
        let len = usize::try_from(blocks.saturating_mul(u64::from(block_len))).unwrap_or(0);
        let bytes = self.stream.read_boxed_slice_exact(len)?;
        let frames = blocks.saturating_mul(u64::from(block_frames));
        let at = Timestamp::new(i64::try_from(self.passed).unwrap_or(i64::MAX));
        self.blocks_left -= blocks;
        self.passed = self.passed.saturating_add(frames);
        Ok(Some(Packet::new(0, at, Duration::new(frames), bytes)))
    }

    fn into_inner<'s>(self: Box<Self>) -> MediaSourceStream<'s>
    where
        Self: 's,
    {
        self.stream
    }
}
