;; Computes for most of a segment between two calls: that is allowed.
;; fails in: nothing
;; says: did as told
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (local $segment i32)
  (local $round i32)
  (loop $segments
    (local.set $round (i32.const 6000000))
    (loop $rounds
      (local.set $round (i32.sub (local.get $round) (i32.const 1)))
      (br_if $rounds (local.get $round)))
    (call $get-health (i32.const 512))
    (local.set $segment (i32.add (local.get $segment) (i32.const 1)))
    (br_if $segments (i32.lt_u (local.get $segment) (i32.const 10))))
  (i32.const 160))
