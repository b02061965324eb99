package main

import (
	"testing"
)

func TestTheLeastRecentlyUsedEntryIsEvictedFirst(t *testing.T) {
	cache := newLRU[int, int](3)
	for i := range 5 {
		cache.put(i, i)
		cache.get(0)
	}
	for key, want := range map[int]bool{0: true, 1: false, 2: false, 3: true, 4: true} {
		if _, found := cache.get(key); found != want {
			t.Errorf("%d: %v", key, found)
		}
	}
	if len(cache.items) != 3 || cache.order.Len() != 3 {
		t.Errorf("%d entries", len(cache.items))
	}
}
