package fleet

// StoreDir is where Nix keeps its paths.
const StoreDir = "/nix/store"

// Closure is a whole store basename, "<32 characters>-<name>", never the bare
// hash: the only way that systems are named in documents and messages.
type Closure string

// Path is the closure's absolute store path.
func (c Closure) Path() string { return StoreDir + "/" + string(c) }
