package doctor

import "golang.org/x/sys/unix"

// inMemory tells whether a folder's file system lives in memory alone.
func inMemory(path string) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return false, err
	}
	kind := int64(s.Type)
	return kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC, nil
}
