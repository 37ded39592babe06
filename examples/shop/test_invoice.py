"""The tests that an agent was asked to make pass."""

import unittest

from invoice import invoice_total, line_total


class TestInvoice(unittest.TestCase):
    def test_no_discount(self):
        self.assertEqual(line_total(250, 4), 1000)

    def test_discount_is_in_percent(self):
        self.assertEqual(line_total(1000, 1, 5), 950)

    def test_sum(self):
        self.assertEqual(invoice_total([(1000, 1, 10), (50, 2, 0)]), 1000)


if __name__ == "__main__":
    unittest.main()
