//! Our own decoders in the shape of symphonia's, so that one way of decoding serves all.
//! Trusts: nothing.
//! Touches: its own buffer.
//! Next: `Decoder` copies the samples.

use ruopus::OpusDecoder;
use symphonia::core::audio::{AsGenericAudioBufferRef, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef};
use symphonia::core::codecs::CodecInfo;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, FinalizeResult};
use symphonia::core::common::FourCc;
use symphonia::core::errors::{Result as SymphoniaResult, decode_error, unsupported_error};
use symphonia::core::packet::PacketRef;

use super::gsm::{BLOCK_LEN, FRAME_LEN, FRAME_SAMPLES, Gsm};

/// GSM 06.10 in 33 bytes, or in blocks of 65.
pub(super) const CODEC_ID_GSM: AudioCodecId = AudioCodecId::new(FourCc::new(*b"gsm "));

/// Samples a second that Opus is decoded to, whatever was recorded (RFC 7845 section 5.1).
pub(super) const OPUS_RATE: u32 = 48_000;

/// Turns one packet into samples.
trait PacketDecoder: Send + Sync {
    /// Replaces `samples`, which are interleaved, -1..=1; `None` when the packet cannot be decoded.
    fn decode(&mut self, packet: &[u8], samples: &mut Vec<f32>) -> Option<()>;
}

/// One of our decoders.
pub(super) struct OwnCodec {
    params: AudioCodecParameters,
    decoder: Box<dyn PacketDecoder>,
    interleaved: Vec<f32>,
    buffer: AudioBuffer<f32>,
}

impl OwnCodec {
    /// A decoder of ours for these parameters; `None` when it is a matter for symphonia.
    pub(super) fn choose(params: &AudioCodecParameters) -> Option<SymphoniaResult<Box<dyn AudioDecoder>>> {
        let make: fn(u16) -> Option<Box<dyn PacketDecoder>> = match params.codec {
            CODEC_ID_GSM => |channels| if channels == 1 { Some(Box::new(Gsm::new())) } else { None },
            CODEC_ID_OPUS => |channels| Some(Box::new(Opus::new(channels)?)),
            _ => return None,
        };
        Some(Self::decoder(params, make))
    }

    fn decoder(params: &AudioCodecParameters, make: fn(u16) -> Option<Box<dyn PacketDecoder>>) -> SymphoniaResult<Box<dyn AudioDecoder>> {
        let rate = if params.codec == CODEC_ID_OPUS { Some(OPUS_RATE) } else { params.sample_rate };
        let (Some(rate), Some(channels)) = (rate, params.channels.clone()) else {
            return unsupported_error("no rate or channels");
        };
        let Some(decoder) = u16::try_from(channels.count()).ok().and_then(make) else { return unsupported_error("channels") };
        let buffer = AudioBuffer::new(AudioSpec::new(rate, channels), 0);
        Ok(Box::new(Self { params: params.clone(), decoder, interleaved: Vec::new(), buffer }))
    }

    fn channels(&self) -> usize {
        self.params.channels.as_ref().map_or(1, Channels::count).max(1)
    }
}

impl AudioDecoder for OwnCodec {
    fn reset(&mut self) {}

    fn codec_info(&self) -> &CodecInfo {
        const { &CodecInfo { short_name: "own", long_name: "a decoder of ours", profiles: &[] } }
    }

    fn codec_params(&self) -> &AudioCodecParameters {
        &self.params
    }

    fn decode_ref(&mut self, packet: &PacketRef<'_>) -> SymphoniaResult<GenericAudioBufferRef<'_>> {
        let channels = self.channels();
        self.buffer.clear();
        if self.decoder.decode(packet.data, &mut self.interleaved).is_none() {
            return decode_error("no frame of this codec");
        }
        let frames = self.interleaved.len() / channels;
        self.buffer.grow_capacity(frames);
        self.buffer.resize_with_silence(frames);
        for (index, plane) in self.buffer.iter_planes_mut().enumerate() {
            for (sample, value) in plane.iter_mut().zip(self.interleaved.iter().skip(index).step_by(channels)) {
                *sample = *value;
            }
        }
        Ok(self.buffer.as_generic_audio_buffer_ref())
    }

    fn finalize(&mut self) -> FinalizeResult {
        FinalizeResult::default()
    }

    fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
        self.buffer.as_generic_audio_buffer_ref()
    }
}

impl PacketDecoder for Gsm {
    fn decode(&mut self, packet: &[u8], samples: &mut Vec<f32>) -> Option<()> {
        samples.clear();
        let mut give = |frame: [i16; FRAME_SAMPLES]| samples.extend(frame.map(|sample| f32::from(sample) / 32_768.0));
        if let Ok(block) = <&[u8; BLOCK_LEN]>::try_from(packet) {
            self.block(block).into_iter().for_each(give);
        } else {
            give(self.frame(<&[u8; FRAME_LEN]>::try_from(packet).ok()?)?);
        }
        Some(())
    }
}

/// Opus at [`OPUS_RATE`].
struct Opus {
    decoder: OpusDecoder,
}

impl Opus {
    fn new(channels: u16) -> Option<Self> {
        matches!(channels, 1 | 2).then(|| Self { decoder: OpusDecoder::new(usize::from(channels)) })
    }
}

impl PacketDecoder for Opus {
    fn decode(&mut self, packet: &[u8], samples: &mut Vec<f32>) -> Option<()> {
        *samples = self.decoder.decode_packet(packet).ok()?;
        Some(())
    }
}
