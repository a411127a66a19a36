package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// Revocations dates and signs a list of revocations and puts it at path, the
// signature beside it, without a release: the next one publishes it. What is at
// path now must verify, when it has a signature, so that nothing is signed that
// somebody else put there.
func (p Publisher) Revocations(ctx context.Context, path string, list []byte, now time.Time) error {
	var old published
	doc, sig, err := old.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a list that was never signed
	case err != nil:
		return err
	case doc != nil:
		if err := trust.CheckSignature(doc, sig, p.Slot, now); err != nil {
			return fmt.Errorf("%s does not verify, so it is not signed again: %w; look at what was changed in it, and remove %s.sig when it is good", path, err, path)
		}
	}
	canon, err := trust.Restamp(list, p.meta(Request{Now: now}, old), "")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if sig, err = p.Signer.Sign(ctx, canon); err != nil {
		return fmt.Errorf("sign %s: %w", path, err)
	}
	if err := verifyList[fleet.Revocations](canon, sig, p.Slot, now); err != nil {
		return fmt.Errorf("%s does not verify with the public key, nothing was written: %w", path, err)
	}
	var text bytes.Buffer // for people; the signature is over the canonical form
	if err := json.Indent(&text, canon, "", "  "); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text.WriteByte('\n')
	return pair{name: filepath.Base(path), doc: text.Bytes(), sig: sig}.publish(path)
}
