-- Routes as records have them: the first string of a call, as JSON text.

-- @include lib/base.lua

local FIELD_SEPARATOR = '\\u001f'

-- Returns the text of a JSON string up to its quotation mark; nil if it has none. A backslash may precede others in it.
local function text_from(record, first)
  local last = first - 1
  while true do
    last = record:find('"', last + 1, true)
    if not last then return nil end
    local backslashes = record:sub(first, last - 1):match('\\*$')
    if #backslashes % 2 == 0 then return record:sub(first, last - 1) end
  end
end

local function route_fields(route)
  local fields, from = {}, 1
  repeat
    local at = route:find(FIELD_SEPARATOR, from, true)
    fields[#fields + 1] = route:sub(from, (at or 0) - 1)
    from = at and at + #FIELD_SEPARATOR
  until not from
  return fields
end
