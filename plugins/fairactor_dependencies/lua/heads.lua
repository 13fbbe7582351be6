-- A part: the beginnings of records.

-- @takes readable, rewritten from lib/base.lua

local HEAD_SIZE = 1024 -- bytes of a record that tell its state, its tenant, and why it was canceled

-- Returns the beginnings of tasks' records; false for each that is lost or unreadable. A record may be long.
local function read_heads(ids)
  local heads = {}
  for i, id in ipairs(ids) do
    local head = rewritten[id] or call('GETRANGE', TASK .. id, 0, HEAD_SIZE)
    heads[i] = readable(head) and head
  end
  return heads
end
