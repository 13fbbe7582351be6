-- Repairs what a shard knows of the kinds of its runtimes. What is lost of a kind, its runtimes say again with their next
-- turns. It comes before the parts that read the ring, because the script has to act for a kind that there is.

-- @include lib/fleet.lua
-- @include lib/mend_steps.lua

-- Makes the list of the kinds agree with their digests and with what they can run.
local function repair_list_of_kinds()
  if shard.compat then return end
  local digests, stay, with_kind = {}, {}, {}
  for digest, kind in pairs(pairs_of(KIND_NUMBERS)) do
    if digests[kind] or call('EXISTS', KIND .. kind) == 0 then
      call('HDEL', KIND_NUMBERS, digest)
    else
      digests[kind] = digest
    end
  end
  local living, any = living_kinds(''), nil
  for kind in shard.kinds:gmatch('%d+') do
    if digests[kind] and not with_kind[kind] then
      any = any or kind
      if living[kind] then stay[#stay + 1], with_kind[kind] = kind, true end
    end
  end
  if not stay[1] and any then stay[1], with_kind[any] = any, true end -- the last one stays without runtimes
  for kind, digest in pairs(digests) do
    if not with_kind[kind] then call('HDEL', KIND_NUMBERS, digest) end
  end
  for runtime, kind in pairs(pairs_of(KIND_OF)) do
    if not with_kind[kind] then call('HDEL', KIND_OF, runtime) end
  end
  for _, kind in ipairs(call('LRANGE', list_of(KIND), 0, -1)) do
    if not with_kind[kind] then call('DEL', KIND .. kind) end
  end
  local first = stay[1] or shard.kinds:match('^%d+')
  local kinds = stay[1] and table.concat(stay, ',') or first
  if kinds ~= shard.kinds then call('HSET', META, 'kinds', kinds) end
  use_kinds(kinds, first)
end

if state.phase == '1' then
  repair_list_of_kinds()
  spend(MOST / 2)
end
