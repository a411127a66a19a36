package evidence

import (
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
	const hashAlgorithm = "sha512"
	digest := sha512.Sum512(SSHMessage(hash))
	signed := append([]byte(sshMagic), ssh.Marshal(struct{ Namespace, Reserved, HashAlgorithm, Digest string }{
		SSHNamespace, "", hashAlgorithm, string(digest[:]),
	})...)
	signature, err := signer.Sign(nil, signed)
	if err != nil {
		return "", fmt.Errorf("ssh signature: %w", err)
	}
	blob := append([]byte(sshMagic), ssh.Marshal(struct {
		Version                                                  uint32
		PublicKey, Namespace, Reserved, HashAlgorithm, Signature string
	}{
		1, string(signer.PublicKey().Marshal()), SSHNamespace, "", hashAlgorithm, string(ssh.Marshal(signature)),
	})...)
	return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: blob})), nil
}

const sshMagic = "SSHSIG"
