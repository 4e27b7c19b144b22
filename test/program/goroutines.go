// Goroutines that hash, sleep and talk through channels. Usage: goroutines ROUNDS
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	rounds, _ := strconv.Atoi(os.Args[1])
	results := make(chan [32]byte, 3)
	var group sync.WaitGroup
	for w := 0; w < 8; w++ {
		group.Add(1)
		go func(w int) {
			defer group.Done()
			h := sha256.Sum256([]byte{byte(w)})
			for i := 0; i < rounds; i++ {
				for k := 0; k < 5000; k++ {
					h = sha256.Sum256(h[:])
				}
				time.Sleep(time.Millisecond)
			}
			results <- h
		}(w)
	}
	go func() { group.Wait(); close(results) }()
	var sum [32]byte
	for h := range results {
		for i := range sum {
			sum[i] ^= h[i]
		}
	}
	fmt.Printf("end %x\n", sum)
}
