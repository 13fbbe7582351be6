-- Reads the records of claimed tasks in pieces, because they do not fit into the reply to a turn.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 the most bytes, then for each task: id, number of the turn that claimed it, 8 bytes, from which byte on
-- Reply for each task its next piece, '' if nothing is left of it or of the bytes, or nothing if the runtime does not have
--       it any more
--
-- Reads only. The record of a claimed task does not change.

-- @include lib/intact.lua

local runtime, left, ids, pieces = ARGV[1], tonumber(ARGV[2]), {}, {}
for i = 3, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
for i, mark in ipairs(read_all('HMGET', CLAIMS .. runtime, ids)) do
  local turn, from = ARGV[1 + 3 * i], tonumber(ARGV[2 + 3 * i])
  pieces[i] = mark and turn_in(mark) == turn and ''
  if pieces[i] and left > 0 then
    pieces[i] = call('GETRANGE', TASK .. ids[i], integer(from), integer(from + left - 1))
    left = left - #pieces[i]
  end
end
return pieces
