;; Takes all memory while the host asks for some.
;; fails in: validate run
;; says: the limit is 64 MiB
(func $realloc (param i32 i32 i32 i32) (result i32)
  (drop (memory.grow (i32.const 2000)))
  (i32.const 65536))
