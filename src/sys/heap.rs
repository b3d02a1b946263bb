//! A heap that forgets: what is freed is wiped before anybody else gets it.
//! Trusts: the system's allocator.
//! Touches: only memory that its owner has just given back.
//! Next: `salamad` and `salama-keeper` make it theirs; the worker's children end with their call instead.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's heap, wiped as it is freed.
///
/// What a call leaves in buffers of libraries (TLS records, JSON, strings that grew) is out of reach for types that wipe themselves.
#[derive(Debug)]
pub struct WipingHeap;

/// Makes the C library wipe what C code frees: libtss2 leaves copies of what it carried. Rust's own blocks are wiped by [`WipingHeap`].
pub fn wipe_foreign_heap() {
    // Any byte but zero, which switches it off (mallopt(3)); memory is filled with it when it is freed.
    // SAFETY: sets a parameter of glibc's allocator; called first thing, while there is one thread.
    unsafe { libc::mallopt(libc::M_PERTURB, 0xa5) };
}

// SAFETY: every block comes from `System` with the same layout and goes back to it unmoved; wiping writes to nothing but the block's own
// bytes. `realloc` is the trait's own: a new block, a copy, and the old block wiped by `dealloc`.
unsafe impl GlobalAlloc for WipingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back a whole block of `layout.size()` bytes that nothing else refers to any more. The compiler leaves
        // out an ordinary write before a free; explicit_bzero(3) it must not.
        unsafe { libc::explicit_bzero(block.cast(), layout.size()) };
        // SAFETY: the caller's promise about `block` and `layout` is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
