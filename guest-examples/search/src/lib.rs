//! `search.search`: a pure function. It imports nothing of `govrun:host`, so there is nothing inside it to govern but
//! the call itself.

wit_bindgen::generate!({ path: "wit" });

struct Search;

export!(Search);

impl Guest for Search {
    fn search(query: String) -> Vec<String> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        let mut hits: Vec<(usize, &str)> =
            CORPUS.lines().map(|line| (score(line, &words), line)).filter(|(score, _)| *score > 0).collect();
        // Stable: lines that match equally well stay in corpus order, so the same query has the same answer.
        hits.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        hits.into_iter().take(RESULTS).map(|(_, line)| line.to_owned()).collect()
    }
}

const CORPUS: &str = include_str!("corpus.txt");

/// The most lines one answer has.
const RESULTS: usize = 10;

/// How many of the words occur in the line.
fn score(line: &str, words: &[String]) -> usize {
    let line = line.to_lowercase();
    words.iter().filter(|word| line.contains(word.as_str())).count()
}
