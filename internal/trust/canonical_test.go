package trust_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"nixfleet/internal/trust"
)

// The examples of RFC 8785, sections 3.2.2 and 3.2.3.
func TestCanonicalRFC8785Examples(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{
			`{ "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
			   "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
			   "literals": [null, true, false] }`,
			`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		},
		{
			`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`,
			`{"\r":"Carriage Return","1":"One","` + "\u0080" + `":"Control","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😀":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
		},
	} {
		got, err := trust.CanonicalAny([]byte(c.in))
		if err != nil || string(got) != c.want {
			t.Errorf("%s\nwant %s\n%v", got, c.want, err)
		}
	}
}

// The numbers of RFC 8785, appendix B.
func TestCanonicalRFC8785Numbers(t *testing.T) {
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0",
		0x8000000000000000: "0",
		0x0000000000000001: "5e-324",
		0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308",
		0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992",
		0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22",
		0x44b52d02c7e14af6: "1e+23",
		0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000",
		0x444b1ae4d6e2ef4f: "999999999999999900000",
		0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7",
		0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332",
		0x41b3de4355555554: "333333333.33333325",
		0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334",
		0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333",
		0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		text := strconv.FormatFloat(math.Float64frombits(bits), 'e', 25, 64)
		if got, err := trust.CanonicalAny([]byte(text)); err != nil || string(got) != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, c := range map[string]struct{ doc, why string }{
		"nothing":           {"", "EOF"},
		"white space":       {" \n", "EOF"},
		"truncated":         {`{"a":1`, "EOF"},
		"two documents":     {`{} {}`, "after top-level value"},
		"single quotes":     {`{'a':1}`, `invalid character '\''`},
		"a comma too many":  {`[1,]`, "invalid character ']'"},
		"duplicate name":    {`{"a":1,"b":{"c":1,"c":1}}`, `duplicate object member name`},
		"the same, escaped": {`{"a":1,"\u0061":2}`, `duplicate object member name`},
		"bad UTF-8":         {"\"\xff\"", "UTF-8"},
		"lone surrogate":    {`"\ud800"`, "surrogate"},
		"overlong slash":    {"\"\xc0\xaf\"", "UTF-8"},
		"byte order mark":   {"\ufeff{}", "invalid character"},
		"control character": {"\"\x01\"", "invalid character"},
		"too deep":          {deep(trust.MaxDepth + 1), "nested deeper than 128"},
		"a bomb of braces":  {strings.Repeat(`{"a":`, 1_000_000), "nested deeper than 128"},
		"one point zero":    {`[1.0]`, "the number 1.0 is not an integer"},
		"exponent":          {`{"a":1e2}`, "the number 1e2 is not an integer"},
		"2^53":              {`9007199254740992`, "the number 9007199254740992 is not an integer within"},
		"-2^53":             {`[-9007199254740992]`, "the number -9007199254740992 is not an integer within"},
		"many digits":       {`1` + strings.Repeat("0", 99), "the number 1000000000000000000000000000000000000000… is not an integer"},
		"leading zero":      {`[01]`, "invalid character '1'"},
		"plus":              {`[+1]`, "invalid character '+'"},
		"NaN":               {`NaN`, "invalid character 'N'"},
		"too large":         {strings.Repeat(" ", trust.MaxDocument) + "1", "33554433 bytes, at most 33554432 are read"},
	} {
		_, err := trust.Canonical([]byte(c.doc))
		if !errors.Is(err, trust.ErrMalformed) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
	if _, err := trust.CanonicalAny([]byte(`1e400`)); !errors.Is(err, trust.ErrMalformed) || !strings.Contains(err.Error(), "larger than a double") {
		t.Errorf("1e400: %v", err)
	}
	if _, err := trust.CanonicalAny([]byte(`[1.5,`)); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("truncated: %v", err)
	}
}

func TestCanonicalTakes(t *testing.T) {
	deepest := strings.Repeat("[", trust.MaxDepth) + strings.Repeat("]", trust.MaxDepth)
	for in, want := range map[string]string{
		"9007199254740991":      "9007199254740991",
		"-9007199254740991\n":   "-9007199254740991",
		"-0":                    "0",
		" true ":                "true",
		deepest:                 deepest,
		`"a\/b\u0041\u00E9"`:    `"a/bAé"`,
		`{"b":1, "a":"1.0 e5"}`: `{"a":"1.0 e5","b":1}`,
		"\"\x7f\u2028\"":        "\"\x7f\u2028\"",
		`"\ud83d\ude00"`:        `"😀"`,
		`{"\\":1,"\"":2}`:       `{"\"":2,"\\":1}`,
	} {
		if got, err := trust.Canonical([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%s is %s, %v; want %s", in, got, err, want)
		}
	}
}

// A document that is canonical already is not copied: on a host it may be large.
func TestCanonicalDoesNotCopyWhatIsCanonical(t *testing.T) {
	doc := []byte(`{"a":[1,-20,"x\n\"\\é\u0001"],"b":{"c":null,"d":true,"e":false},"f":{},"g":[]}`)
	got, err := trust.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	if &got[0] != &doc[0] || len(got) != len(doc) {
		t.Errorf("copied: %s", got)
	}
}

// Texts that are nearly canonical are brought into the form, or refused; they
// are never taken for canonical as they stand.
func TestCanonicalOfNearlyCanonical(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":1}`: `{"a":1,"b":1}`,
		`{"a":1,"a":1}`: "",
		`{"a" :1}`:      `{"a":1}`,
		`{"a": 1}`:      `{"a":1}`,
		`{"a":1 }`:      `{"a":1}`,
		`["a" ]`:        `["a"]`,
		`["\u001F"]`:    `["\u001f"]`,
		`["\u000a"]`:    `["\n"]`,
		`["\u0020"]`:    `[" "]`,
		`["\/"]`:        `["/"]`,
		`["\u00zz"]`:    "",
		`["\x"]`:        "",
		`["\`:           "",
		"[\"\xe9\"]":    "",
		"[\"\n\"]":      "",
		`["a`:           "",
		`[-0]`:          `[0]`,
		`[00]`:          "",
		`[-]`:           "",
		`[1-1]`:         "",
		`{"a"`:          "",
		`{"a":`:         "",
		`{"a":1`:        "",
		`{"a":1,`:       "",
		`{"a":1,}`:      "",
		`{1:1}`:         "",
		`{"a";1}`:       "",
		`{"a":1;"b":1}`: "",
		`[1`:            "",
		`[1;`:           "",
		`[tru]`:         "",
		`[nulL]`:        "",
		`{"é":1,"z":1}`: `{"z":1,"é":1}`,
		`{"\u0061":1}`:  `{"a":1}`,
	} {
		got, err := trust.Canonical([]byte(in))
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s is %q, %v; want %q", in, got, err, want)
		}
	}
}

func drawText(t *rapid.T, label string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range rapid.StringN(0, 8, -1).Draw(t, label) {
		switch way := rapid.IntRange(0, 3).Draw(t, "escape"); {
		case r == utf8.RuneError:
			b.WriteString("x")
		case way == 0 && r < 0x10000:
			fmt.Fprintf(&b, `\u%04X`, r)
		case r < ' ' || r == '"' || r == '\\':
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == '/' && way == 1:
			b.WriteString(`\/`)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}

func drawValue(t *rapid.T, depth int) string {
	space := func() string { return rapid.SampledFrom([]string{"", "", " ", "\n\t"}).Draw(t, "space") }
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	if depth == 0 {
		kind = 4
	} else if depth > 4 {
		kind = min(kind, 3)
	}
	switch kind {
	case 0:
		return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "literal")
	case 1, 2:
		return strconv.FormatInt(rapid.Int64Range(-(1<<53-1), 1<<53-1).Draw(t, "number"), 10)
	case 3:
		return drawText(t, "string")
	case 4:
		seen, members := map[string]bool{}, []string{}
		for range rapid.IntRange(0, 5).Draw(t, "members") {
			name := drawText(t, "name")
			var plain string
			if json.Unmarshal([]byte(name), &plain) == nil && !seen[plain] {
				seen[plain] = true
				members = append(members, space()+name+space()+":"+space()+drawValue(t, depth+1)+space())
			}
		}
		return "{" + space() + strings.Join(members, ",") + "}"
	}
	var items []string
	for range rapid.IntRange(0, 4).Draw(t, "items") {
		items = append(items, space()+drawValue(t, depth+1)+space())
	}
	return "[" + strings.Join(items, ",") + "]"
}

// Two implementations that know nothing of each other agree, and what is
// canonical stays as it is.
func TestCanonicalAgreesWithAnotherImplementation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := []byte(drawValue(t, 0))
		got, err := trust.Canonical(doc)
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		want, err := jcs.Transform(doc)
		if err != nil {
			t.Fatalf("%s: the other: %v", doc, err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s is\n%s, the other says\n%s", doc, got, want)
		}
		if again, err := trust.Canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%s became %s, %v", got, again, err)
		}
	})
}

// generator writes documents of every kind, the same for one seed.
type generator struct {
	*rand.Rand
	bytes.Buffer
	seen map[string]int // what was written, by kind
}

func (g *generator) space() { g.WriteString([]string{"", "", "", " ", "\n\t", "\r\n  "}[g.IntN(6)]) }

// character is one of any plane, in any of the ways in which it can be written.
func (g *generator) character() {
	r := []rune{
		rune(g.IntN(0x20)), rune(0x20 + g.IntN(0x60)), rune(0x80 + g.IntN(0x780)), rune(0x800 + g.IntN(0xd000)),
		rune(0xe000 + g.IntN(0x2000)), rune(0x10000 + g.IntN(0x100000)), '"', '\\', '/', 0x7f, 0x2028, 0xfffd, 0x10ffff, []rune("\b\f\n\r\t")[g.IntN(5)],
	}[g.IntN(14)]
	short := strings.IndexRune("\"\\/\b\f\n\r\t", r)
	switch way := g.IntN(3); {
	case short >= 0 && way == 0:
		g.WriteString([]string{`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`}[short])
		g.seen["escape "+strconv.Itoa(short)]++
	case r > 0xffff && way == 1:
		high, low := utf16.EncodeRune(r)
		fmt.Fprintf(g, `\u%04x\u%04X`, high, low)
		g.seen["surrogates"]++
	case r <= 0xffff && way == 1, r < 0x20, r == '"', r == '\\':
		fmt.Fprintf(g, []string{`\u%04x`, `\u%04X`}[g.IntN(2)], r)
		g.seen["hex escape"]++
	default:
		g.WriteRune(r)
		if r > 0xffff {
			g.seen["beyond the BMP"]++
		}
	}
}

// text writes a string and gives what it says.
func (g *generator) text() string {
	begin := g.Len()
	g.WriteByte('"')
	for range g.IntN(5) {
		g.character()
	}
	g.WriteByte('"')
	var plain string
	if err := json.Unmarshal(g.Bytes()[begin:], &plain); err != nil {
		panic(err)
	}
	return plain
}

func (g *generator) integer() {
	n := []int64{0, 1, 1<<53 - 1, 1 << g.IntN(53), 1<<g.IntN(53) - 1, int64(math.Pow10(g.IntN(16))), g.Int64N(1 << 53), g.Int64N(1000)}[g.IntN(8)]
	if g.IntN(2) == 0 {
		g.WriteByte('-') // also before 0
	}
	g.WriteString(strconv.FormatInt(n, 10))
	g.seen["integer of "+strconv.Itoa(len(strconv.FormatInt(n, 10)))]++
}

func (g *generator) value(depth int) {
	g.space()
	defer g.space()
	kind := g.IntN(8)
	if depth == 0 {
		kind = g.IntN(2)
	} else if depth > 6 {
		kind = 2 + g.IntN(6)
	}
	switch kind {
	case 0:
		g.WriteByte('{')
		names := map[string]bool{}
		for range g.IntN(6) {
			before, comma := g.Len(), len(names) > 0
			if comma {
				g.WriteByte(',')
			}
			g.space()
			name := g.text()
			if names[name] {
				g.Truncate(before)
				continue
			}
			names[name] = true
			g.space()
			g.WriteByte(':')
			g.value(depth + 1)
		}
		g.space()
		g.WriteByte('}')
		g.seen["object of "+strconv.Itoa(min(len(names), 2))]++
	case 1:
		g.WriteByte('[')
		n := g.IntN(4)
		for i := range n {
			if i > 0 {
				g.WriteByte(',')
			}
			g.value(depth + 1)
		}
		g.space()
		g.WriteByte(']')
		g.seen["array of "+strconv.Itoa(min(n, 2))]++
	case 2, 3:
		g.text()
	case 4, 5:
		g.integer()
	default:
		g.WriteString([]string{"null", "true", "false"}[g.IntN(3)])
		g.seen["depth "+strconv.Itoa(depth)]++
	}
}

// Ten thousand documents, the same in every run, have the same canonical bytes by
// the two implementations.
func TestCanonicalOfTenThousandDocuments(t *testing.T) {
	g := &generator{Rand: rand.New(rand.NewPCG(8785, 1)), seen: map[string]int{}}
	for n := range 10_000 {
		g.Reset()
		g.value(0)
		doc := g.Bytes()
		got, err := trust.Canonical(doc)
		if err != nil {
			t.Fatalf("document %d: %v\n%s", n, err, doc)
		}
		want, err := jcs.Transform(doc)
		if err != nil {
			t.Fatalf("document %d: the other: %v\n%s", n, err, doc)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("document %d:\n%s\nis\n%s\nthe other says\n%s", n, doc, got, want)
		}
		if again, err := trust.Canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("document %d became %s, %v", n, again, err)
		}
	}
	// Of everything there was some.
	kinds := []string{"surrogates", "hex escape", "beyond the BMP", "depth 7"}
	for n := range 16 {
		kinds = append(kinds, "integer of "+strconv.Itoa(n+1))
	}
	for n := range 8 {
		kinds = append(kinds, "escape "+strconv.Itoa(n))
	}
	for n := range 3 {
		kinds = append(kinds, "object of "+strconv.Itoa(n), "array of "+strconv.Itoa(n))
	}
	for _, kind := range kinds {
		if g.seen[kind] < 50 {
			t.Errorf("%d × %s", g.seen[kind], kind)
		}
	}
}

// FuzzCanonical: a text has one form however it is read. With a space before it
// the encoder makes the form; without, it may have been recognised.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1,"b":[true,null,"\u0001é"]}`, `{"b":1,"a":2}`, `[1.0]`, `{"a":1,"a":1}`, "\"\xff\"", `"\ud800"`, `-0`, `9007199254740992`,
		`["\"\\\b\f\n\r\t\u001f\u007f"]`, `{"é":1,"z":2}`, `{"":0,"!":1}`, "[[[[]]]]", "1 2", `"a`, `"\u00`, `{"a":`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := trust.Canonical(doc)
		slow, slowErr := trust.Canonical(append([]byte(" "), doc...))
		if (err == nil) != (slowErr == nil) || !bytes.Equal(got, slow) {
			t.Fatalf("%q is %q, %v; after a space %q, %v", doc, got, err, slow, slowErr)
		}
		if err != nil {
			if !errors.Is(err, trust.ErrMalformed) {
				t.Fatalf("%q: %v", doc, err)
			}
			return
		}
		if again, err := trust.Canonical(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q became %q, %v", got, again, err)
		}
		var one, two any
		if json.Unmarshal(doc, &one) != nil || json.Unmarshal(got, &two) != nil || !reflect.DeepEqual(one, two) {
			t.Fatalf("%q and %q are read as %v and %v", doc, got, one, two)
		}
		if general, err := trust.CanonicalAny(doc); err != nil || !bytes.Equal(general, got) {
			t.Fatalf("%q is %q and, with any number, %q, %v", doc, got, general, err)
		}
	})
}

func TestEncode(t *testing.T) {
	got, err := trust.Encode(map[string]any{"b": []string(nil), "a": 1})
	if err != nil || string(got) != `{"a":1,"b":[]}` {
		t.Errorf("%s, %v", got, err)
	}
	for _, v := range []any{1.5, make(chan int)} {
		if got, err := trust.Encode(v); err == nil {
			t.Errorf("%v is written as %s", v, got)
		}
	}
}
