// Command passer passes three points, two of them with the same name.
package main

import (
	"fmt"
	"os"
	"strings"

	"nixfleet/internal/crashpoint"
)

func main() {
	fmt.Println("began")
	crashpoint.Here("passer/first", "a sentence of a point")
	fmt.Println("passed the first")
	crashpoint.Here("passer/second", "another sentence")
	fmt.Println("passed the second")
	again()
	fmt.Println("passed it again")
	for _, entry := range append(os.Environ(), crashpoint.Environ()...) {
		if name, _, _ := strings.Cut(entry, "="); strings.Contains(name, "CRASH") {
			fmt.Println("handed on:", entry)
		}
	}
}

func again() { crashpoint.Here("passer/second", "another sentence") }
