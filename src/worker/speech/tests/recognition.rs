//! The whole pipeline, sound to words.

use super::super::*;
use super::{graph, model_dir};

pub fn models(name: &str) -> SpeechModels {
    let read = |file: &str| std::fs::read(model_dir(name).join(file)).unwrap();
    SpeechModels::new(
        graph("silero-vad", "silero_vad_16k_sequence.onnx"),
        WhisperParts {
            encoder: graph(name, "encoder.onnx"),
            decoder: graph(name, "decoder.onnx"),
            embedding: read("emb.f16"),
            positions: read("dpos.f16"),
            tokens: read("tokens.bin"),
            settings: read("asr.json"),
        },
    )
    .unwrap()
}

#[test]
fn explore() {
    let name = std::env::var("X_MODEL").unwrap();
    let t = std::time::Instant::now();
    let m = models(&name);
    eprintln!("load {:?}", t.elapsed());
    let t = std::time::Instant::now();
    m.warm_up().unwrap();
    eprintln!("warm {:?}", t.elapsed());
    if std::env::var("X_BENCH").is_ok() {
        let speech = super::recording("librivox/sense_and_sensibility_01_austen_64kb-0870.wav");
        for w in [1000, 3000] {
            let mut best = [f32::MAX; 4];
            for _ in 0..3 {
                let t = std::time::Instant::now();
                let win = m.whisper.listen(&speech, w).unwrap();
                best[0] = best[0].min(t.elapsed().as_secs_f32() * 1e3);
                let t = std::time::Instant::now();
                m.whisper.mel.compute(&speech, w);
                best[3] = best[3].min(t.elapsed().as_secs_f32() * 1e3);
                let mut s = m.whisper.begin(&win).unwrap();
                for _ in 0..20 {
                    let t = std::time::Instant::now();
                    let h = s.step(50257).unwrap();
                    best[1] = best[1].min(t.elapsed().as_secs_f32() * 1e3);
                    let t = std::time::Instant::now();
                    let mut sc = m.whisper.embedding.scores(&h);
                    m.whisper.embedding.settle(&h, &mut sc);
                    best[2] = best[2].min(t.elapsed().as_secs_f32() * 1e3);
                }
            }
            eprintln!("BENCH window {w} enc {:.1} step {:.2} logits {:.2} mel {:.1} ms", best[0], best[1], best[2], best[3]);
        }
    }
    let (mut audio, mut busy) = (0.0, 0.0);
    for path in std::fs::read_to_string(std::env::var("X_LIST").unwrap()).unwrap().lines() {
        let bytes = std::fs::read(path).unwrap();
        let samples: Vec<f32> = bytes[if path.ends_with("wav") { 44 } else { 0 }..].as_chunks::<2>().0.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32768.0).collect();
        let t = std::time::Instant::now();
        if std::env::var("X_WHOLE").is_ok() && samples.len() < 28 * 16000 {
            let r = Region::whole(0, 0, samples.clone());
            let w = whisper::window_frames(r.samples.len());
            let h = m.attempt(&r, w, None).unwrap();
            eprintln!("@@ {} {:?}", path.rsplit('/').next().unwrap(), h.tokens);
        }
        let mut s = Segmenter::new(&m, 0).unwrap();
        let mut rs = s.push(&samples).unwrap();
        rs.extend(s.finish().unwrap());
        let vadt = t.elapsed().as_secs_f32();
        eprintln!("== {} {:.2}s vad {:.3}s regions {:?}", path.rsplit('/').next().unwrap(), samples.len() as f32 / 16e3, vadt, rs.iter().map(|r| (r.start_ms, r.samples.len() / 16, r.speech.len())).collect::<Vec<_>>());
        for r in &rs {
            let t = std::time::Instant::now();
            let w = std::env::var("X_WIN").map_or(whisper::window_frames(r.samples.len()), |w| w.parse().unwrap());
            let win = m.whisper.listen(&r.samples, w).unwrap();
            let enc = t.elapsed();
            let h = decode_loop::decode(&m.whisper, &win, None).unwrap();
            let dec = t.elapsed() - enc;
            eprintln!("  win {w} enc {enc:?} dec {dec:?} n {} lp {:.2} ns {:.3} loop {} lang {:?}", h.tokens.len(), h.mean_log_prob, h.no_speech, h.looped, h.language.as_ref().map(|l| (l.code.clone(), l.probability)));
            // attention mass inside the clip, token by token
            let clip = r.samples.len().div_ceil(320);
            let mass: Vec<String> = h.tokens.iter().zip(&h.attention).zip(&h.log_probs).map(|((t, row), lp)| {
                let heads = row.len() / h.frames;
                let inside: f32 = (0..heads).map(|k| row[k * h.frames..k * h.frames + clip.min(h.frames)].iter().sum::<f32>()).sum::<f32>() / heads as f32;
                format!("{}|{:.2}|{:.2}", String::from_utf8_lossy(m.whisper.tokens.bytes(*t)), inside, lp.exp())
            }).collect();
            if std::env::var("X_MASS").is_ok() { eprintln!("  {}", mass.join(" ")); }
            busy += t.elapsed().as_secs_f64();
            for u in m.transcribe(r, None).unwrap() {
                eprintln!("  [{:.2}-{:.2}] {} {:.2}: {}", u.start_ms as f32 / 1e3, u.end_ms as f32 / 1e3, u.language, u.confidence, u.text());
                if std::env::var("X_WORDS").is_ok() { eprintln!("     {:?}", u.words.iter().map(|w| (w.text.as_str(), w.start_ms, w.end_ms)).collect::<Vec<_>>()); }
            }
        }
        audio += samples.len() as f64 / 16e3;
    }
    eprintln!("RTF {:.3} over {audio:.1} s", busy / audio);
}
