//! From bytes to a demuxer and a codec, each one of a closed list.
//! Trusts: nothing; headers of WAV, AU and MP4 have been checked by our own code before symphonia sees them.
//! Touches: the recording.
//! Next: `Decoder` pulls packets.

use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_ALAC, CODEC_ID_OPUS, CODEC_ID_PCM_S16BE, CODEC_ID_PCM_S16LE};
use symphonia::core::codecs::audio::{AudioCodecId, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Result as SymphoniaResult;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadBytes, ReadOnlySource};
use symphonia::core::packet::Packet;
use symphonia::default::codecs::{AacDecoder, AlacDecoder, FlacDecoder, MpaDecoder, PcmDecoder, VorbisDecoder};
use symphonia::default::formats::{FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader};

use super::au::Au;
use super::blocks::{Blocks, Layout};
use super::mp4::{self, Edit};
use super::own_codec::{CODEC_ID_GSM, OPUS_RATE, OwnCodec};
use super::sniff::{self, Container, MpegHeader};
use super::source::{Reading, Recording, Window};
use super::wav::{Coding, Wav};
use super::{fault, flac, gsm, matroska, ogg};
use crate::ipc::worker::{CallFailure, RawSamples};

/// Everything that decoding starts from.
pub(super) struct Opened {
    pub(super) reader: Box<dyn FormatReader>,
    pub(super) codec: Box<dyn AudioDecoder>,
    pub(super) track: u32,
    pub(super) format: String,
    pub(super) sample_rate: u32,
    pub(super) channels: u8,
    /// Samples a channel, as the header says or lets guess.
    pub(super) length: Option<u64>,
    pub(super) ending: Ending,
    /// Samples of each channel to drop at the beginning.
    pub(super) skip: u64,
    /// Samples of each channel to keep after that.
    pub(super) keep: u64,
    pub(super) reading: Arc<Reading>,
}

/// A checked header: how to build the demuxer, and what it does not know.
struct Plan {
    demuxer: Demuxer,
    start: u64,
    len: u64,
    name: &'static str,
    edit: Option<Edit>,
    ending: Ending,
}

/// Exactly the demuxers that there are.
#[derive(Clone, Copy)]
enum Demuxer {
    Blocks(Layout),
    Flac,
    Matroska,
    Ogg,
    Mpeg,
    Mp4,
}

/// Recognise, check, build.
pub(super) fn open(source: Box<dyn MediaSource>) -> Result<Opened, CallFailure> {
    let mut recording = Recording::new(source)?;
    let plan = plan(&mut recording)?;
    build_all(recording, plan)
}

/// The recording is samples of 16 bits without a header.
pub(super) fn open_samples(source: Box<dyn MediaSource>, samples: RawSamples) -> Result<Opened, CallFailure> {
    let recording = Recording::new(source)?;
    let channels = u16::from(samples.channels);
    let (name, codec) = if samples.big_endian { ("raw/pcm_s16be", CODEC_ID_PCM_S16BE) } else { ("raw/pcm_s16le", CODEC_ID_PCM_S16LE) };
    if !(1..=2).contains(&channels) {
        return Err(CallFailure::Channels);
    }
    let block_len = 2 * u32::from(channels);
    let layout = Layout { codec, sample_rate: samples.sample_rate, channels, block_len, block_frames: 1, single: false };
    let len = recording.len();
    match len {
        0 => Err(CallFailure::Empty),
        len if !len.is_multiple_of(u64::from(block_len)) => Err(CallFailure::Truncated),
        len => build_all(recording, blocks(name, layout, 0, len)),
    }
}

fn build_all(recording: Recording, plan: Plan) -> Result<Opened, CallFailure> {
    let (window, reading) = recording.window(plan.start, plan.len);
    let opened = build(plan.demuxer, window).and_then(|reader| {
        let (track, codec) = choose_codec(reader.as_ref())?;
        Ok((reader, track, codec))
    });
    let (reader, track_id, codec) = if reading.failed() { Err(CallFailure::Unreadable) } else { opened }?;
    let track = reader.tracks().iter().find(|track| track.id == track_id).ok_or(CallFailure::Damaged)?;
    let (sample_rate, channels, codec_id) = kind(track)?;
    if matches!(plan.demuxer, Demuxer::Matroska) && codec_id != CODEC_ID_OPUS {
        return Err(CallFailure::UnsupportedCodec);
    }
    let (skip, keep) = match plan.edit {
        Some(edit) => trim(edit, sample_rate),
        None if codec_id == CODEC_ID_OPUS => opus_trim(track),
        None => (0, u64::MAX),
    };
    let length = track.num_frames.filter(|frames| *frames > 0).map(|frames| frames.saturating_sub(skip).min(keep));
    let mut ending = plan.ending;
    ending.expect(track.num_frames);
    let format = match (plan.demuxer, codec_id) {
        (Demuxer::Mp4, CODEC_ID_AAC) => "m4a/aac",
        (Demuxer::Mp4, CODEC_ID_ALAC) => "m4a/alac",
        (Demuxer::Ogg, CODEC_ID_OPUS) => "ogg/opus",
        _ => plan.name,
    };
    Ok(Opened { codec, track: track_id, format: format.to_owned(), sample_rate, channels, length, ending, skip, keep, reading, reader })
}

fn plan(recording: &mut Recording) -> Result<Plan, CallFailure> {
    let sniff::Found { container, start } = sniff::recognise(recording)?;
    let len = recording.len().saturating_sub(start);
    let whole = |demuxer, name, ending| Plan { demuxer, start, len, name, edit: None, ending };
    match container {
        Container::Wav => {
            let wav = Wav::read(recording, start)?;
            match wav.coding {
                Coding::Blocks { name, layout } => Ok(blocks(name, layout, wav.start, wav.len)),
                Coding::Mp3 => mpeg(recording, "wav/mp3", wav.start, wav.len),
            }
        }
        Container::Au => {
            let au = Au::read(recording, start)?;
            Ok(blocks(au.name, au.layout, au.start, au.len))
        }
        Container::Gsm => {
            let frame_len = u64::try_from(gsm::FRAME_LEN).unwrap_or(u64::MAX);
            let layout = Layout { codec: CODEC_ID_GSM, sample_rate: 8000, channels: 1, block_len: 33, block_frames: 160, single: true };
            if len.is_multiple_of(frame_len) { Ok(blocks("gsm", layout, start, len)) } else { Err(CallFailure::Truncated) }
        }
        Container::Flac => {
            flac::inspect(recording, start)?;
            Ok(whole(Demuxer::Flac, "flac", Ending::Stated { samples: None, passed: 0 }))
        }
        Container::Matroska => {
            matroska::inspect(recording, start)?;
            Ok(whole(Demuxer::Matroska, "webm/opus", Ending::Checked))
        }
        Container::Ogg => {
            ogg::inspect(recording, start)?;
            Ok(whole(Demuxer::Ogg, "ogg/vorbis", Ending::Marked))
        }
        Container::Mp4 => Ok(Plan { edit: mp4::inspect(recording, start)?, ..whole(Demuxer::Mp4, "m4a", Ending::Marked) }),
        Container::Mpeg => {
            let len = len.saturating_sub(sniff::id3v1_len(recording)?);
            mpeg(recording, "mp3", start, len)
        }
    }
}

fn blocks(name: &'static str, layout: Layout, start: u64, len: u64) -> Plan {
    let ending = Ending::Stated { samples: Some(layout.frames(len)), passed: 0 };
    Plan { demuxer: Demuxer::Blocks(layout), start, len, name, edit: None, ending }
}

fn mpeg(recording: &mut Recording, name: &'static str, start: u64, len: u64) -> Result<Plan, CallFailure> {
    let tag = sniff::mpeg_tag_frame(recording, start)?;
    let ending = Ending::Frames { samples: None, tagged: tag.is_some(), passed: 0, bytes: tag.unwrap_or(0) };
    Ok(Plan { demuxer: Demuxer::Mpeg, start, len, name, edit: None, ending })
}

fn build(demuxer: Demuxer, window: Window) -> Result<Box<dyn FormatReader>, CallFailure> {
    let build = || -> SymphoniaResult<Box<dyn FormatReader>> {
        let source: Box<dyn MediaSource> = match demuxer {
            // Where it could seek it would follow every pointer of the index at the beginning, and keep what it finds there.
            Demuxer::Matroska => Box::new(ReadOnlySource::new(window)),
            _ => Box::new(window),
        };
        let mut stream = MediaSourceStream::new(source, Default::default());
        let options = FormatOptions::default();
        Ok(match demuxer {
            Demuxer::Blocks(layout) => Box::new(Blocks::new(stream, layout)),
            Demuxer::Flac => Box::new(FlacReader::try_new(stream, options)?),
            Demuxer::Matroska => Box::new(MkvReader::try_new(stream, options)?),
            Demuxer::Ogg => Box::new(OggReader::try_new(stream, options)?),
            Demuxer::Mpeg => Box::new(MpaReader::try_new(stream, options)?),
            Demuxer::Mp4 => {
                // The reader expects to stand behind the length of the first box, as the probe would leave it.
                stream.ignore_bytes(4)?;
                Box::new(IsoMp4Reader::try_new(stream, options)?)
            }
        })
    };
    fault::caught(build)?.map_err(|error| fault::failure(&error))
}

/// The audio track and a codec for it.
pub(super) fn choose_codec(reader: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>), CallFailure> {
    // A track whose codec the demuxer does not know at all has no parameters.
    let track = reader.default_track(TrackType::Audio).ok_or(CallFailure::UnsupportedCodec)?;
    let Some(CodecParameters::Audio(params)) = &track.codec_params else { return Err(CallFailure::UnsupportedCodec) };
    if let Some(own) = OwnCodec::choose(params) {
        return own.map(|codec| (track.id, codec)).map_err(|error| fault::failure(&error));
    }
    let made = fault::caught(|| codecs().make_audio_decoder(params, &AudioDecoderOptions::default()))?;
    Ok((track.id, made.map_err(|error| fault::failure(&error))?))
}

/// Exactly the codecs of symphonia that are accepted.
fn codecs() -> CodecRegistry {
    let mut codecs = CodecRegistry::new();
    codecs.register_audio_decoder::<PcmDecoder>();
    codecs.register_audio_decoder::<MpaDecoder>();
    codecs.register_audio_decoder::<FlacDecoder>();
    codecs.register_audio_decoder::<AacDecoder>();
    codecs.register_audio_decoder::<AlacDecoder>();
    codecs.register_audio_decoder::<VorbisDecoder>();
    codecs
}

/// Sample rate, channels and codec of a track, within what is accepted.
fn kind(track: &Track) -> Result<(u32, u8, AudioCodecId), CallFailure> {
    let Some(CodecParameters::Audio(params)) = &track.codec_params else { return Err(CallFailure::UnsupportedCodec) };
    // Opus has one rate, whatever a header says of the recording before it was encoded.
    let rate = if params.codec == CODEC_ID_OPUS { Some(OPUS_RATE) } else { params.sample_rate };
    let rate = rate.filter(|rate| (8_000..=48_000).contains(rate)).ok_or(CallFailure::SampleRate)?;
    let channels = match params.channels.as_ref().map(|channels| channels.count()) {
        Some(1) => 1,
        Some(2) => 2,
        _ => return Err(CallFailure::Channels),
    };
    Ok((rate, channels, params.codec))
}

/// Samples to skip and to keep at `rate`.
fn trim(edit: Edit, rate: u32) -> (u64, u64) {
    let scaled = |units: u64, scale: u32| units.saturating_mul(u64::from(rate)).checked_div(u64::from(scale));
    let keep = scaled(edit.length, edit.movie_scale).filter(|keep| *keep > 0);
    (scaled(edit.skip, edit.media_scale).unwrap_or(0), keep.unwrap_or(u64::MAX))
}

/// Samples to skip and to keep of a further part of a chained file.
pub(super) fn trim_of_part(reader: &dyn FormatReader, track_id: u32) -> (u64, u64) {
    let track = reader.tracks().iter().find(|track| track.id == track_id);
    let opus = |track: &&Track| matches!(&track.codec_params, Some(CodecParameters::Audio(params)) if params.codec == CODEC_ID_OPUS);
    track.filter(opus).map_or((0, u64::MAX), opus_trim)
}

/// The identification header says what is to be skipped at the beginning; granule positions count it (RFC 7845 sections 4.2, 5.1).
fn opus_trim(track: &Track) -> (u64, u64) {
    let Some(CodecParameters::Audio(params)) = &track.codec_params else { return (0, u64::MAX) };
    let skip = match params.extra_data.as_deref().and_then(|head| head.get(10..12)) {
        Some([low, high]) => u64::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    };
    (skip, track.num_frames.map_or(u64::MAX, |frames| frames.saturating_sub(skip)))
}

/// How one knows that a recording is whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// The container marks its end, or has been checked: a demuxer that finds the end has found it all.
    Marked,
    /// All lengths have been checked; what streams without lengths ends where the bytes end.
    Checked,
    /// The header states the number of samples.
    Stated { samples: Option<u64>, passed: u64 },
    /// MPEG frames: perhaps counted in a tag, and none may be cut.
    Frames { samples: Option<u64>, tagged: bool, passed: u64, bytes: u64 },
}

impl Ending {
    /// What the demuxer read of the number of samples.
    fn expect(&mut self, frames: Option<u64>) {
        let frames = frames.filter(|frames| *frames > 0);
        match self {
            Self::Stated { samples, .. } => *samples = samples.or(frames),
            Self::Frames { samples, tagged: true, .. } => *samples = frames,
            Self::Frames { .. } | Self::Marked | Self::Checked => {}
        }
    }

    /// The length in the header is a statement, not a guess.
    pub(super) const fn is_exact(&self) -> bool {
        !matches!(self, Self::Frames { tagged: false, .. })
    }

    /// Samples that are missing before this packet, where packets carry their own time.
    pub(super) fn gap_before(&self, packet: &Packet) -> u64 {
        match self {
            Self::Stated { passed, .. } => u64::try_from(packet.pts.get()).unwrap_or(0).saturating_sub(*passed),
            Self::Marked | Self::Checked | Self::Frames { .. } => 0,
        }
    }

    /// A packet has come.
    pub(super) fn passed(&mut self, packet: &Packet) {
        let end = packet.pts.get().saturating_add_unsigned(packet.dur.get());
        let end = u64::try_from(end).unwrap_or(0);
        match self {
            Self::Stated { passed, .. } => *passed = end.max(*passed),
            Self::Frames { passed, bytes, .. } => {
                *passed = end.max(*passed);
                *bytes = bytes.saturating_add(u64::try_from(packet.data.len()).unwrap_or(u64::MAX));
            }
            Self::Marked | Self::Checked => {}
        }
    }

    /// Nothing that was stated is missing.
    pub(super) fn is_reached(&self) -> bool {
        match *self {
            Self::Marked => false,
            Self::Checked => true,
            Self::Stated { samples, passed } | Self::Frames { samples, passed, .. } => samples.is_none_or(|samples| passed >= samples),
        }
    }

    /// At the end: was it all?
    pub(super) fn check(&self, reader: Box<dyn FormatReader>) -> Result<(), CallFailure> {
        let whole = match *self {
            Self::Marked | Self::Checked => true,
            Self::Stated { .. } => self.is_reached(),
            Self::Frames { bytes, .. } => self.is_reached() && !ends_in_a_frame(reader, bytes)?,
        };
        if whole { Ok(()) } else { Err(CallFailure::Truncated) }
    }
}

/// The bytes behind the last whole frame, at `end`, are the beginning of another one.
fn ends_in_a_frame(reader: Box<dyn FormatReader>, end: u64) -> Result<bool, CallFailure> {
    let rest = || -> SymphoniaResult<Option<(u64, [u8; 4])>> {
        let mut stream = reader.into_inner();
        let total = stream.byte_len().unwrap_or(0);
        if total.saturating_sub(end) < 4 {
            return Ok(None);
        }
        stream.seek(SeekFrom::Start(end))?;
        Ok(Some((total - end, stream.read_quad_bytes()?)))
    };
    let rest = fault::caught(rest)?.map_err(|error| fault::failure(&error))?;
    Ok(rest.is_some_and(|(left, bytes)| MpegHeader::parse(bytes).is_some_and(|header| left < header.frame_len)))
}
