// Writes tokenizer_encodings.json: byte strings and the ids that an independent implementation of GPT-2's encoding
// gives, the npm package gpt-tokenizer (made with 4.0.0, r50k_base).
//     npm install gpt-tokenizer@4.0.0     (in any folder)
//     NODE_PATH=<that folder>/node_modules node generate_tokenizer_encodings.mjs >tokenizer_encodings.json
// Its own merging of bytes is used throughout. Its pattern's \s is JavaScript's: entries where that differs from
// Unicode's White_Space, those of invalid UTF-8, and those with <|endoftext|> as one token (which version 4.0.0 does not
// recognise, whatever it is told) are split here; every other entry is encoded by the package alone, and both ways must
// agree.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { BytePairEncodingCore } = require('gpt-tokenizer/BytePairEncodingCore');
const { default: ranks } = require('gpt-tokenizer/bpeRanks/r50k_base');
const { encode } = require('gpt-tokenizer/encoding/r50k_base');

const special = '<|endoftext|>';
const space = '\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const pattern = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${space}\\p{L}\\p{N}]+` +
    `|[${space}]+(?![^${space}])|[${space}]+`, 'gu');
const core = new BytePairEncodingCore({ bytePairRankDecoder: ranks, tokenSplitRegex: pattern });

// One character for each well-formed sequence, U+FFFD for each other byte, with their bytes.
function characters(bytes) {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    const found = [];
    for (let at = 0; at < bytes.length;) {
        let length = 1, character = '\ufffd';
        for (let n = 1; n <= 4 && at + n <= bytes.length; ++n) {
            try {
                character = decoder.decode(bytes.subarray(at, at + n));
                length = n;
                break;
            } catch { /* not well-formed */ }
        }
        found.push([character, bytes.subarray(at, at + length)]);
        at += length;
    }
    return found;
}

function byParts(bytes, recognize) {
    const all = characters(bytes);
    const ids = [];
    const words = (part) => {
        let next = 0;
        for (const [word] of part.map(([c]) => c).join('').matchAll(pattern)) {
            const piece = [...word].flatMap(() => [...part[next++][1]]);
            ids.push(...(piece.length === 1 ? [core.getBpeRankFromBytes(Uint8Array.from(piece))]
                : core.bytePairMerge(Uint8Array.from(piece))));
        }
    };
    let start = 0;
    for (let at = 0; recognize && at + special.length <= all.length; ++at) {
        if (all.slice(at, at + special.length).map(([c]) => c).join('') !== special) continue;
        words(all.slice(start, at));
        ids.push(50256);
        start = at + special.length;
        at = start - 1;
    }
    words(all.slice(start));
    return ids;
}

const entries = [];
function add(name, content, { repeat = 1, recognize = true } = {}) {
    const unit = typeof content === 'string' ? Buffer.from(content, 'utf8') : Buffer.from(content);
    const bytes = Buffer.concat(Array(repeat).fill(unit));
    const ids = byParts(bytes, recognize);
    const text = bytes.toString('utf8');
    const plain = Buffer.from(text, 'utf8').equals(bytes) && !/[\x85\ufeff]/u.test(text);
    if (plain && !(recognize && text.includes(special))) {
        const own = encode(text, { disallowedSpecial: new Set() });
        if (own.join() !== ids.join()) throw new Error(`${name}: the package says ${own}, its parts ${ids}`);
    }
    entries.push({ name, hex: unit.toString('hex'), repeat, recognize, ids });
}

add('nothing', '');
add('a word', 'Hello');
add('a sentence', 'The quick brown fox jumps over the lazy dog.');
add('a final newline', 'The end.\n');
add('one space', ' ');
add('spaces before, between and after', '  two  three   four    ');
add('a space before a newline', 'a \n b\n\n c \n\n\nd');
add('tabs, vertical tab, form feed, carriage return', '\ta\t\tb\v c\f\r\nd \t e');
add('digits', '0 12 345 6789 1234567890 3.14159 1,000,000 007');
add('letters and digits', 'abc123def 4x4 R2D2');
add('contractions', "it's don't we're I've I'm we'll he'd");
add('contractions in capitals', "IT'S DON'T WE'RE 'S 'T");
add('contractions that are none', "'tis 'sunday rock'n'roll ' s '' 'l 'v it’s");
add('punctuation', '!?.,;:()[]{}<>@#$%^&*_-+=/\\|~`" ... --- ==> :-)');
add('code', 'for (int i = 0; i < n; ++i) {\n    x[i] += 1;\n}\n');
add('a link', 'https://example.org/path?query=value&x=%20#part');
add('a long word', 'pneumonoultramicroscopicsilicovolcanoconiosis');
add('accents', 'café naïve Zürich Ærø smørrebrød façade ñandú');
add('combining accents', 'cafe\u0301 nai\u0308ve a\u0300\u0301\u0302');
add('Greek, Cyrillic, Hebrew, Arabic', 'Ελληνικά русский язык עברית العربية');
add('Devanagari, Thai', 'हिन्दी ภาษาไทย');
add('numbers that are no digits', '½ Ⅻ ² ٣٤ 一二 ①');
add('Chinese, Japanese, Korean', '中文字符 日本語のテキスト 한국어');
add('ideographic space and stop', '中\u3000文。 「日」');
add('emoji', '😀 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️ a😀b');
add('symbols beyond the plane', '𝔘𝔫𝔦 𝟙𝟚 🜁 𐍈');
add('private use and unassigned', '\ue000 \u{10ffff} \u0378');
add('NUL and control characters', '\0\x01\x02 \x07\x08\x0e \x1b[0m \x7f');
add('separators that are no space', 'a\x1cb \x1d\x1e\x1f c');
add('next line', 'a\x85b \x85 c\x85\x85');
add('no-break space', 'a\u00a0b \u00a0 c\u00a0\u00a0d');
add('other Unicode spaces', 'a\u1680b\u2000\u2001c\u2009 \u200ad\u2028e\u2029f\u202fg\u205fh');
add('zero width and format characters', 'a\u200bb\u200cc\u200dd \u2060e\u00adf');
add('vowel separator', 'a\u180eb \u180e c');
add('byte order mark', '\ufeffa \ufeff b');
add('replacement character', 'a\ufffdb \ufffd');
add('end of text', 'one<|endoftext|>two <|endoftext|> three');
add('end of text alone and twice', '<|endoftext|><|endoftext|>');
add('end of text as characters', 'one<|endoftext|>two <|endoftext|>', { recognize: false });
add('end of text broken', '<|endoftext| > <|endoftext <|ENDOFTEXT|>');
add('a space before end of text', 'a  <|endoftext|>');
add('a lone continuation byte', [0x61, 0x80, 0x62]);
add('bytes that are never UTF-8', [0x20, 0xff, 0xfe, 0x20, 0xc0, 0xc1, 0xf5]);
add('sequences cut short', [0x61, 0xc3, 0x20, 0xe2, 0x82, 0x62, 0xf0, 0x9f, 0x98]);
add('overlong forms', [0xc0, 0xaf, 0x20, 0xe0, 0x80, 0xaf, 0xf0, 0x80, 0x80, 0xaf]);
add('a surrogate', [0x61, 0xed, 0xa0, 0x80, 0x62]);
add('beyond the last code point', [0xf4, 0x90, 0x80, 0x80, 0x41]);
add('an invalid byte after spaces', [0x61, 0x20, 0x20, 0xff, 0x0a, 0xff]);
add('an invalid byte in a word', [0x63, 0x61, 0x66, 0xe9, 0x73]);
add('an invalid byte in end of text', [...Buffer.from('<|endof'), 0xff, ...Buffer.from('text|>')]);
add('every byte', Array.from({ length: 256 }, (_, b) => b));
add('a long run of a letter', 'a', { repeat: 1000 });
add('a long run of two letters', 'ab', { repeat: 501 });
add('a long run of spaces', ' ', { repeat: 1000 });
add('a long run of newlines', '\n', { repeat: 777 });
add('a long run of a symbol', '=', { repeat: 1000 });
add('a long run of a digit', '1', { repeat: 999 });
add('a long run of an emoji', '😀', { repeat: 200 });
add('a long run of an invalid byte', [0xff], { repeat: 300 });
add('a long run of a syllable', 'banana', { repeat: 200 });

const line = (e) => `    ${JSON.stringify(e)}`;
process.stdout.write(`[\n${entries.map(line).join(',\n')}\n]\n`);
