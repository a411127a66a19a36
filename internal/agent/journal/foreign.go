package journal

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// The switch may replace the agent by a newer or an older one, and both read the
// same journal. An older agent must not lose what a newer one wrote: fields that
// this program does not know are put back when a record is rewritten. Looking
// for them costs a decoding of the old record, so it is done only for records
// that had such fields when the journal was opened; this process adds none.

// foreignFields is the set of records, as bucket/key, with unknown fields.
type foreignFields map[string]bool

func (f foreignFields) has(bucket, key []byte) bool { return f[string(bucket)+"/"+string(key)] }

// scan looks through all records that are rewritten.
func (f *foreignFields) scan(t *Tx) error {
	*f = foreignFields{}
	for _, kind := range []struct {
		bucket []byte
		record reflect.Type
	}{
		{bucketSelf, reflect.TypeFor[Self]()},
		{bucketRollouts, reflect.TypeFor[Rollout]()},
	} {
		err := t.tx.Bucket(kind.bucket).ForEach(func(k, v []byte) error {
			if len(unknownFields(v, kind.record)) > 0 {
				(*f)[string(kind.bucket)+"/"+string(k)] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// graft gives raw, the new form of v, with the fields of old that v's type does
// not have. It looks into nested objects, not into lists.
func graft(old, raw []byte, v any) ([]byte, error) {
	unknown := unknownFields(old, reflect.TypeOf(v))
	if len(unknown) == 0 {
		return raw, nil
	}
	var tree map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // numbers as they were written
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	merge(tree, unknown)
	return json.Marshal(tree)
}

// merge adds unknown fields; those of an object that is gone went with it.
func merge(into, unknown map[string]any) {
	for name, v := range unknown {
		inner, nested := v.(map[string]any)
		if !nested {
			into[name] = v
		} else if outer, ok := into[name].(map[string]any); ok {
			merge(outer, inner)
		}
	}
}

// unknownFields gives the part of an object that t has no field for, as a tree
// of the same shape; values are kept byte for byte. What is no object has none.
func unknownFields(raw []byte, t reflect.Type) map[string]any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var object map[string]json.RawMessage
	if t.Kind() != reflect.Struct || json.Unmarshal(raw, &object) != nil {
		return nil
	}
	known := fields(t)
	unknown := map[string]any{}
	for name, value := range object {
		if ft, ok := known.of(name); !ok {
			unknown[name] = value
		} else if inner := unknownFields(value, ft); len(inner) > 0 {
			unknown[name] = inner
		}
	}
	return unknown
}

// fieldTypes are the types of a struct's fields by their JSON names.
type fieldTypes map[string]reflect.Type

// of finds a field as the decoder does: capitals do not matter, or what is known
// already would be put back as if it were not.
func (f fieldTypes) of(name string) (reflect.Type, bool) {
	if t, ok := f[name]; ok {
		return t, true
	}
	for known, t := range f {
		if strings.EqualFold(known, name) {
			return t, true
		}
	}
	return nil, false
}

func fields(t reflect.Type) fieldTypes {
	known := fieldTypes{}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		known[name] = f.Type
	}
	return known
}
