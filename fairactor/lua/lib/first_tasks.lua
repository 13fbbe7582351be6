-- The first tasks of places where they wait, as many as one script handles.

-- @include lib/base.lua

local BATCH = 100
local BYTES = 500000 -- of records in a call, by about one record

local ids, bytes = {}, 0
local function is_full() return #ids >= BATCH or bytes >= BYTES end
local function take(id)
  ids[#ids + 1] = id
  bytes = bytes + call('STRLEN', TASK .. id)
end

-- Takes the first tasks of a place. Returns their ids.
local function take_first(key)
  local from = #ids + 1
  for _, id in ipairs(is_full() and {} or call('ZRANGE', key, 0, BATCH - from)) do
    if is_full() then break end
    take(id)
  end
  return { unpack(ids, from) }
end
