package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/lifecycle"
)

// SSHNamespace keeps these signatures apart from every other use of a host key.
const SSHNamespace = "nixfleet-evidence"

// checkpointEvery is after how many records a chain gets an SSH signature
// whatever happens.
const checkpointEvery = 1000

// CheckpointDue tells whether the record of an event of this kind, the n-th of
// its chain counted from 1, carries an SSH signature.
func CheckpointDue(n int64, kind lifecycle.Kind) bool {
	switch kind {
	case lifecycle.KindConverged, lifecycle.KindFailed, lifecycle.KindRollbackComplete:
		return true
	}
	return n%checkpointEvery == 0
}

// SSHMessage is what SSHSign signs: the record's hash as a line of text, so that
// `echo HASH | ssh-keygen -Y verify -n nixfleet-evidence …` checks it.
func SSHMessage(hash string) []byte { return []byte(hash + "\n") }

// SSHSign makes the armoured SSHSIG signature of a record's hash. The chain
// leads from it to every record before.
func SSHSign(hash string, key ed25519.PrivateKey) (string, error) {
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		return "", fmt.Errorf("ssh signature: %w", err)
	}
	signature, err := signer.Sign(nil, sshSigned(hash))
	if err != nil {
		return "", fmt.Errorf("ssh signature: %w", err)
	}
	blob := append([]byte(sshMagic), ssh.Marshal(sshBlob{
		1, string(signer.PublicKey().Marshal()), SSHNamespace, "", sshHash, string(ssh.Marshal(signature)),
	})...)
	return string(pem.EncodeToMemory(&pem.Block{Type: sshArmour, Bytes: blob})), nil
}

// SSHVerify checks that an armoured signature is what SSHSign makes of the hash
// with the host's key, as ssh-keygen -Y verify does.
func SSHVerify(hash, armoured string, key ed25519.PublicKey) error {
	block, rest := pem.Decode([]byte(armoured))
	if block == nil || block.Type != sshArmour || len(bytes.TrimSpace(rest)) > 0 {
		return fmt.Errorf("%w: the SSH signature is not an armoured one", ErrSignature)
	}
	blob, isSSH := bytes.CutPrefix(block.Bytes, []byte(sshMagic))
	var b sshBlob
	if err := ssh.Unmarshal(blob, &b); !isSSH || err != nil {
		return fmt.Errorf("%w: the SSH signature cannot be read", ErrSignature)
	}
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		return fmt.Errorf("ssh signature: %w", err)
	}
	var signature ssh.Signature
	switch err := ssh.Unmarshal([]byte(b.Signature), &signature); {
	case err != nil:
		return fmt.Errorf("%w: the SSH signature cannot be read", ErrSignature)
	case b.Version != 1 || b.Namespace != SSHNamespace || b.HashAlgorithm != sshHash:
		return fmt.Errorf("%w: the SSH signature is for %q, with %s", ErrSignature, b.Namespace, b.HashAlgorithm)
	case b.PublicKey != string(public.Marshal()):
		return fmt.Errorf("%w: the SSH signature is by another key", ErrSignature)
	case public.Verify(sshSigned(hash), &signature) != nil:
		return fmt.Errorf("%w: the SSH signature is of another hash", ErrSignature)
	}
	return nil
}

// sshSigned is what an SSH signature of a record's hash signs.
func sshSigned(hash string) []byte {
	digest := sha512.Sum512(SSHMessage(hash))
	return append([]byte(sshMagic), ssh.Marshal(struct{ Namespace, Reserved, HashAlgorithm, Digest string }{
		SSHNamespace, "", sshHash, string(digest[:]),
	})...)
}

// sshBlob is the armoured part of a signature, after the magic; PROTOCOL.sshsig
// of OpenSSH describes it.
type sshBlob struct {
	Version                                                  uint32
	PublicKey, Namespace, Reserved, HashAlgorithm, Signature string
}

const (
	sshMagic  = "SSHSIG"
	sshArmour = "SSH SIGNATURE"
	sshHash   = "sha512"
)
