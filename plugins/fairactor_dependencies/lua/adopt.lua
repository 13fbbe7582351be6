-- Gives the task that joins the results of an `each()` those of items that finished in earlier attempts at the run.
--
-- KEYS  1 META of the shard
-- ARGV  1 the joining task, 2 the number of its shard, if that is another one, or '', 3 number of earlier joining tasks, then
--       their ids, the latest first; the rest: numbers of items, from 0
-- Reply for each item 1 if it has finished before, otherwise 0; for the first ones only, if it has copied many bytes
--
-- Bounded: its caller asks for 100 tasks, and it copies about 1 MB of results.
-- Safe to repeat: an end counts once.

-- @include lib/transition.lua
-- @include own/outcome.lua
-- @include own/heads.lua

local BYTES = 1048576
local id, many = ARGV[1], tonumber(ARGV[3])
local ids, bytes = {}, 0
for i = 4 + many, #ARGV do
  for j = 4, 3 + many do ids[#ids + 1] = ARGV[j] .. '/' .. ARGV[i] end
end
local heads, reply, adopted = read_heads(ids), {}, { id = id, shard = tonumber(ARGV[2]) }
for i = 4 + many, #ARGV do
  if bytes >= BYTES then break end
  local n = i - 3 - many
  reply[n] = 0
  for j = (n - 1) * many + 1, n * many do
    if heads[j] then
      if heads[j]:sub(1, 1) == DONE then
        local record = call('GET', TASK .. ids[j])
        reply[n], bytes = 1, bytes + #record
        adopted[#adopted + 1] = { tonumber(ARGV[i]) + 1, ids[j], record }
      end
      break
    end
  end
end
share(SELF).adopted = adopted
carry_out()
return reply
