// Command hello greets whom its argument names.
package main

import (
	"fmt"
	"os"

	"example.com/hello/internal/greeting"
)

func main() {
	fmt.Println(greeting.For(os.Args[1:]))
}
