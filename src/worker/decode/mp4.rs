//! What symphonia does not say of an MP4 file: whether it is whole, and which samples are the encoder's own.
//! Trusts: nothing; walks a bounded number of boxes and never past the one they are in.
//! Touches: nothing but the recording.
//! Next: `open` cuts the priming off with the [`Edit`] found here.

use super::source::{Recording, TAGS_MAX, add_to};
use crate::ipc::worker::CallFailure;

/// Most boxes that are looked at in one file: a fragment has seven, and lasts a second or more.
const BOXES_MAX: u32 = 1 << 18;
/// Largest index: four hours of AAC have 3 MB of sample sizes.
const MOVIE_MAX: u64 = 16 * 1024 * 1024;
/// Most steps of looking up the times of all samples, each from the beginning of its table: some seconds.
const LOOKUPS_MAX: u64 = 1 << 34;

/// One box (ISO 14496-12 section 4.2).
#[derive(Clone, Copy, Debug)]
struct Atom {
    name: [u8; 4],
    body: u64,
    end: u64,
}

/// The part of the decoded audio that was recorded: an edit list's first non-empty entry (section 8.6.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edit {
    /// Decoded time before the recording begins (the encoder's priming), in units of `media_scale`.
    pub(super) skip: u64,
    /// Units a second.
    pub(super) media_scale: u32,
    /// Length of the recording in units of `movie_scale`; 0 when the file does not say.
    pub(super) length: u64,
    /// Units a second.
    pub(super) movie_scale: u32,
}

/// Checks that the file holds every box it announces, and reads the edit of its first audio track.
pub(super) fn inspect(recording: &mut Recording, start: u64) -> Result<Option<Edit>, CallFailure> {
    let mut walk = Walk { left: BOXES_MAX };
    let (mut lookups, mut tags, mut fragments) = (0, 0, 0);
    let end = recording.len();
    let (mut movie, mut has_samples) = (None, false);
    let mut at = start;
    while at < end {
        let atom = walk.next(recording, at, end)?.ok_or(CallFailure::Truncated)?;
        let size = atom.end - atom.body;
        match &atom.name {
            // Of two indexes a reader may take either.
            b"moov" if movie.is_some() => return Err(CallFailure::Damaged),
            b"moov" => {
                add_to(&mut 0, size, MOVIE_MAX)?;
                movie = Some(atom);
            }
            b"moof" => {
                has_samples = true;
                add_to(&mut fragments, size, MOVIE_MAX)?;
                walk.runs(recording, atom, &mut lookups)?;
            }
            b"mdat" => has_samples = true,
            b"free" | b"skip" | b"wide" | b"uuid" => {}
            _ => add_to(&mut tags, size, TAGS_MAX)?,
        }
        at = atom.end;
    }
    match (movie, has_samples) {
        // A recorder that was stopped writes samples first and never comes to write the index.
        (None, true) => Err(CallFailure::Truncated),
        (None, false) => Err(CallFailure::Damaged),
        (Some(movie), _) => {
            walk.tables(recording, movie, &mut lookups)?;
            walk.edit(recording, movie)
        }
    }
}

struct Walk {
    left: u32,
}

impl Walk {
    /// The box at `at`; `None` when it reaches past `end`.
    fn next(&mut self, recording: &mut Recording, at: u64, end: u64) -> Result<Option<Atom>, CallFailure> {
        self.left = self.left.checked_sub(1).ok_or(CallFailure::Damaged)?;
        let (header, filled) = recording.peek::<16>(at)?;
        let [s0, s1, s2, s3, n0, n1, n2, n3, long @ ..] = header;
        let (header_len, len) = match u32::from_be_bytes([s0, s1, s2, s3]) {
            0 => (8, end.saturating_sub(at)),
            1 => (16, u64::from_be_bytes(long)),
            len => (8, u64::from(len)),
        };
        if u64::try_from(filled).unwrap_or(0) < header_len {
            return Ok(None);
        }
        if len < header_len {
            return Err(CallFailure::Damaged);
        }
        let atom = Atom { name: [n0, n1, n2, n3], body: at.saturating_add(header_len), end: at.saturating_add(len) };
        Ok((atom.end <= end).then_some(atom))
    }

    /// The first child of `parent` called `name`, from `from` on.
    fn child(&mut self, recording: &mut Recording, parent: Atom, name: [u8; 4], from: u64) -> Result<Option<Atom>, CallFailure> {
        let mut at = from;
        while at < parent.end {
            let Some(atom) = self.next(recording, at, parent.end)? else { return Err(CallFailure::Damaged) };
            if atom.name == name {
                return Ok(Some(atom));
            }
            at = atom.end;
        }
        Ok(None)
    }

    /// The child of `parent` called `name`, of which there must be one at most: of two a reader may take either.
    fn only(&mut self, recording: &mut Recording, parent: Atom, name: [u8; 4]) -> Result<Option<Atom>, CallFailure> {
        let Some(first) = self.child(recording, parent, name, parent.body)? else { return Ok(None) };
        match self.child(recording, parent, name, first.end)? {
            None => Ok(Some(first)),
            Some(_) => Err(CallFailure::Damaged),
        }
    }

    /// Adds what it takes to look up the samples of a fragment, each from the beginning of its run.
    fn runs(&mut self, recording: &mut Recording, fragment: Atom, lookups: &mut u64) -> Result<(), CallFailure> {
        let mut from = fragment.body;
        while let Some(track) = self.child(recording, fragment, *b"traf", from)? {
            from = track.end;
            let mut at = track.body;
            while let Some(run) = self.child(recording, track, *b"trun", at)? {
                at = run.end;
                let samples = u64::from(u32::from_be_bytes(recording.exactly(run.body.saturating_add(4))?));
                add_to(lookups, samples.saturating_mul(samples), LOOKUPS_MAX)?;
            }
        }
        Ok(())
    }

    /// Checks that the tables of times do not make the demuxer's work grow out of proportion.
    fn tables(&mut self, recording: &mut Recording, movie: Atom, lookups: &mut u64) -> Result<(), CallFailure> {
        let (mut from, mut entries, mut samples) = (movie.body, 0_u64, 0_u64);
        while let Some(track) = self.child(recording, movie, *b"trak", from)? {
            from = track.end;
            let mut table = Some(track);
            for name in [*b"mdia", *b"minf", *b"stbl"] {
                table = match table {
                    Some(parent) => self.only(recording, parent, name)?,
                    None => None,
                };
            }
            let Some(table) = table else { continue };
            let mut at = table.body;
            while at < table.end {
                let atom = self.next(recording, at, table.end)?.ok_or(CallFailure::Damaged)?;
                match &atom.name {
                    b"stts" | b"ctts" => entries = entries.saturating_add((atom.end - atom.body) / 8),
                    b"stsz" => samples = samples.saturating_add(u32::from_be_bytes(recording.exactly(atom.body.saturating_add(8))?).into()),
                    _ => {}
                }
                at = atom.end;
            }
        }
        add_to(lookups, entries.saturating_mul(samples), LOOKUPS_MAX)
    }

    fn edit(&mut self, recording: &mut Recording, movie: Atom) -> Result<Option<Edit>, CallFailure> {
        let Some(head) = self.child(recording, movie, *b"mvhd", movie.body)? else { return Ok(None) };
        let movie_scale = timescale(recording, head)?;
        let mut from = movie.body;
        while let Some(track) = self.child(recording, movie, *b"trak", from)? {
            from = track.end;
            let Some(media) = self.only(recording, track, *b"mdia")? else { continue };
            let Some(handler) = self.child(recording, media, *b"hdlr", media.body)? else { continue };
            if &recording.exactly::<4>(handler.body.saturating_add(8))? != b"soun" {
                continue;
            }
            let Some(head) = self.child(recording, media, *b"mdhd", media.body)? else { return Ok(None) };
            let media_scale = timescale(recording, head)?;
            let Some(edits) = self.child(recording, track, *b"edts", track.body)? else { return Ok(None) };
            let Some(list) = self.child(recording, edits, *b"elst", edits.body)? else { return Ok(None) };
            return Ok(first_edit(recording, list)?.map(|(skip, length)| Edit { skip, media_scale, length, movie_scale }));
        }
        Ok(None)
    }
}

/// The timescale of an `mvhd` or `mdhd` box (sections 8.2.2, 8.4.2).
fn timescale(recording: &mut Recording, head: Atom) -> Result<u32, CallFailure> {
    let [version, ..] = recording.exactly::<4>(head.body)?;
    let offset = if version == 1 { 20 } else { 12 };
    Ok(u32::from_be_bytes(recording.exactly::<4>(head.body.saturating_add(offset))?))
}

/// Media time and length of the first entry that shows media. Negative media times are empty edits.
fn first_edit(recording: &mut Recording, list: Atom) -> Result<Option<(u64, u64)>, CallFailure> {
    let [version, _, _, _, count @ ..] = recording.exactly::<8>(list.body)?;
    let mut at = list.body.saturating_add(8);
    for _ in 0..u32::from_be_bytes(count).min(8) {
        let (length, time, size) = if version == 1 {
            let [length @ .., t0, t1, t2, t3, t4, t5, t6, t7] = recording.exactly::<16>(at)?;
            (u64::from_be_bytes(length), i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]), 20)
        } else {
            let [l0, l1, l2, l3, time @ ..] = recording.exactly::<8>(at)?;
            (u64::from(u32::from_be_bytes([l0, l1, l2, l3])), i64::from(i32::from_be_bytes(time)), 12)
        };
        if let Ok(skip) = u64::try_from(time) {
            return Ok(Some((skip, length)));
        }
        at = at.saturating_add(size);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn atom(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut atom = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
        atom.extend(name);
        atom.extend(body);
        atom
    }

    fn look(file: &[u8]) -> Result<Option<Edit>, CallFailure> {
        inspect(&mut Recording::new(Box::new(Cursor::new(file.to_vec()))).unwrap(), 0)
    }

    fn head(scale: u32) -> Vec<u8> {
        [[0; 12].as_slice(), &scale.to_be_bytes()].concat()
    }

    fn movie() -> Vec<u8> {
        let empty_edit = [[0, 0, 0, 7], [0xff; 4], [0, 1, 0, 0]].concat();
        let edit = [[0, 0, 3, 0xe8], [0, 0, 4, 0], [0, 1, 0, 0]].concat();
        let list = atom(b"elst", &[[0, 0, 0, 0, 0, 0, 0, 2].as_slice(), &empty_edit, &edit].concat());
        let media = [atom(b"mdhd", &head(8000)), atom(b"hdlr", b"\0\0\0\0\0\0\0\0soun")].concat();
        let track = [atom(b"edts", &list), atom(b"mdia", &media)].concat();
        atom(b"moov", &[atom(b"mvhd", &head(1000)), atom(b"trak", &track)].concat())
    }

    #[test]
    fn the_first_entry_with_media_says_what_is_priming() {
        let file = [atom(b"ftyp", b"M4A "), movie(), atom(b"mdat", &[0; 9])].concat();
        assert_eq!(look(&file), Ok(Some(Edit { skip: 1024, media_scale: 8000, length: 1000, movie_scale: 1000 })));
    }

    #[test]
    fn a_box_that_reaches_past_the_end_is_a_truncation() {
        let file = [atom(b"ftyp", b"M4A "), movie(), atom(b"mdat", &[0; 9])].concat();
        for cut in [1, 8, 9, 16] {
            assert_eq!(look(&file[..file.len() - cut]), Err(CallFailure::Truncated), "{cut}");
        }
    }

    #[test]
    fn samples_without_an_index_are_a_truncation() {
        assert_eq!(look(&[atom(b"ftyp", b"M4A "), atom(b"mdat", &[0; 9])].concat()), Err(CallFailure::Truncated));
    }

    #[test]
    fn an_index_or_tags_out_of_proportion_are_damage() {
        let file = |name: &[u8; 4], len: u64| {
            look(&[atom(b"ftyp", b"M4A "), atom(name, &vec![0; usize::try_from(len).unwrap()]), movie()].concat())
        };
        assert_eq!(file(b"meta", TAGS_MAX + 1), Err(CallFailure::Damaged));
        let many = atom(b"meta", &vec![0; 512 * 1024]).repeat(3);
        assert_eq!(look(&[atom(b"ftyp", b"M4A "), many, movie()].concat()), Err(CallFailure::Damaged));
        assert!(file(b"free", TAGS_MAX + 1).is_ok());
        let tags = atom(b"udta", &vec![0; usize::try_from(MOVIE_MAX).unwrap()]);
        assert_eq!(look(&[atom(b"ftyp", b"M4A "), atom(b"moov", &tags), atom(b"mdat", b"")].concat()), Err(CallFailure::Damaged));
    }

    #[test]
    fn tables_that_would_be_searched_for_ever_are_damage() {
        let movie = |samples: u32, entries: usize| {
            let sizes = atom(b"stsz", &[[0; 8], (u64::from(samples) << 32).to_be_bytes()].concat());
            let table = atom(b"stbl", &[atom(b"stts", &vec![0; 8 + 8 * entries]), sizes].concat());
            let track = atom(b"trak", &atom(b"mdia", &atom(b"minf", &table)));
            look(&[atom(b"moov", &[atom(b"mvhd", &head(1000)), track].concat()), atom(b"mdat", b"")].concat())
        };
        assert_eq!(movie(675_000, 10_000), Ok(None));
        assert_eq!(movie(u32::MAX, 1), Ok(None));
        assert_eq!(movie(u32::MAX, 4), Err(CallFailure::Damaged));
        assert_eq!(movie(100_000, 200_000), Err(CallFailure::Damaged));
    }

    #[test]
    fn runs_of_fragments_that_would_be_searched_for_ever_are_damage() {
        let fragments = |samples: u32, count: usize| {
            let run = atom(b"trun", &[[0; 4], samples.to_be_bytes()].concat());
            let fragment = [atom(b"moof", &atom(b"traf", &run)), atom(b"mdat", b"")].concat();
            look(&[atom(b"moov", &atom(b"mvhd", &head(1000))), fragment.repeat(count)].concat())
        };
        assert_eq!(fragments(500, 18_000), Ok(None));
        assert_eq!(fragments(200_000, 1), Err(CallFailure::Damaged));
        assert_eq!(fragments(20_000, 50), Err(CallFailure::Damaged));
    }

    #[test]
    fn boxes_of_which_a_reader_may_take_either_are_damage() {
        assert_eq!(look(&[movie(), atom(b"mdat", b""), movie()].concat()), Err(CallFailure::Damaged));
        let nested = |name: &[u8; 4], inner: Vec<u8>| [atom(name, &inner), atom(name, b"")].concat();
        let track = |media: Vec<u8>| atom(b"moov", &[atom(b"mvhd", &head(1000)), atom(b"trak", &media)].concat());
        let table = atom(b"stbl", b"");
        for media in [
            nested(b"mdia", atom(b"minf", &table)),
            atom(b"mdia", &nested(b"minf", table.clone())),
            atom(b"mdia", &atom(b"minf", &nested(b"stbl", Vec::new()))),
        ] {
            assert_eq!(look(&[track(media), atom(b"mdat", b"")].concat()), Err(CallFailure::Damaged));
        }
    }

    #[test]
    fn boxes_without_end_are_damage() {
        assert_eq!(look(&atom(b"free", b"").repeat(300_000)), Err(CallFailure::Damaged));
        assert_eq!(look(b"\0\0\0\x04ftypxxxxxxxxxxxxx"), Err(CallFailure::Damaged));
    }
}
