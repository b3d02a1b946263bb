//! Several pieces of text read as one, so that what is said over two utterances is found, and the way back to each piece.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `recognise` and `ner` read the text; findings are carried back by [`Document::locate`].

use std::ops::Range;

use crate::ipc::transcript::Utterance;

/// Pieces of a whole text, one a line.
pub struct Document {
    /// The pieces, joined by line feeds.
    pub text: String,
    /// For each piece: where it begins in `text`, where it lies in the whole.
    pieces: Vec<(usize, Range<usize>)>,
}

impl Document {
    /// The pieces of `whole` at `ranges`, in this order.
    pub fn new(whole: &str, ranges: impl Iterator<Item = Range<usize>>) -> Self {
        let mut document = Self { text: String::new(), pieces: Vec::new() };
        for range in ranges {
            if !document.pieces.is_empty() {
                document.text.push('\n');
            }
            let start = document.text.len();
            document.text.push_str(whole.get(range.clone()).unwrap_or_default());
            document.pieces.push((start, range));
        }
        document
    }

    /// Where these bytes of the text lie in the whole: one range for each piece that they touch.
    pub fn locate(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        let first = self.pieces.partition_point(|(start, piece)| start + piece.len() <= range.start);
        let touched = self.pieces.get(first..).unwrap_or_default().iter().take_while(|(start, _)| *start < range.end);
        touched
            .map(|(start, piece)| {
                let from = range.start.saturating_sub(*start);
                let to = (range.end - start).min(piece.len());
                piece.start + from..piece.start + to
            })
            .filter(|range| !range.is_empty())
            .collect()
    }
}

/// A call as one text: the utterances' texts, one a line, in the order given.
pub struct Call {
    /// The text.
    pub whole: String,
    /// Where each utterance lies in it.
    pub utterances: Vec<Range<usize>>,
    /// Where each word lies in it, by utterance.
    pub words: Vec<Vec<Range<usize>>>,
}

impl Call {
    /// Lays the utterances end to end.
    pub fn new(clear: &[Utterance]) -> Self {
        let mut call = Self { whole: String::new(), utterances: Vec::new(), words: Vec::new() };
        for utterance in clear {
            if !call.utterances.is_empty() {
                call.whole.push('\n');
            }
            let start = call.whole.len();
            let mut words = Vec::new();
            for word in &utterance.words {
                if !words.is_empty() {
                    call.whole.push(' ');
                }
                let at = call.whole.len();
                call.whole.push_str(&word.text);
                words.push(at..call.whole.len());
            }
            call.utterances.push(start..call.whole.len());
            call.words.push(words);
        }
        call
    }

    /// How the call is read: once as a conversation in order of time, and once for each speaker's channel when there are several,
    /// so that "mm-hm" from the other side does not break a number in two.
    pub fn documents(&self, clear: &[Utterance]) -> Vec<Document> {
        let mut order: Vec<(u32, usize)> = clear.iter().map(|utterance| utterance.start_ms).zip(0..).collect();
        order.sort_unstable();
        let range = |index: usize| self.utterances.get(index).cloned().unwrap_or(0..0);
        let mut documents = vec![Document::new(&self.whole, order.iter().map(|(_, index)| range(*index)))];
        let mut channels: Vec<u8> = clear.iter().map(|utterance| utterance.channel).collect();
        channels.sort_unstable();
        channels.dedup();
        if channels.len() > 1 {
            for channel in channels {
                let of_channel = order.iter().filter(|(_, index)| clear.get(*index).is_some_and(|utterance| utterance.channel == channel));
                documents.push(Document::new(&self.whole, of_channel.map(|(_, index)| range(*index))));
            }
        }
        documents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_over_two_pieces_lies_in_both() {
        let document = Document::new("abc def ghi", [8..11, 0..3].into_iter());
        assert_eq!(document.text, "ghi\nabc");
        assert_eq!(document.locate(&(1..6)), [9..11, 0..2]);
        assert_eq!(document.locate(&(3..4)), Vec::<Range<usize>>::new());
    }
}
