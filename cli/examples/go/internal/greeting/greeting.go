// Package greeting words greetings.
package greeting

import "strings"

// For is the greeting for these names; the world's where there is none.
func For(names []string) string {
	if len(names) == 0 {
		names = []string{"world"}
	}
	return "hello " + strings.Join(names, " and ")
}
